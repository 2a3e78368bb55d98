# Blocks of two simulated candidates on a host that drifts, wanders and has bad moments, measured by turns.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import signal

from clients.load.comparison import Block, order
from clients.load.statistics import Samples

Simulation = Callable[[np.random.Generator, int], Samples]
"""So many latencies of a server in their order, in seconds, on a host that is all its own."""


@dataclass(frozen=True, slots=True)
class Host:
    """By how much it slows what runs on it: `drift` from the first block to the last, in either direction; a `wave`; `wandering`,
    which remembers the last blocks; and `noisy` of the blocks by `loss` more. `own` is what wanders in each candidate alone."""

    drift: float = 0.2
    wave: float = 0.05
    wandering: float = 0.03
    noisy: float = 0.1
    loss: float = 0.1
    own: float = 0.0


def independent(random: np.random.Generator, count: int) -> Samples:
    return np.asarray(np.exp(0.5 * random.standard_normal(count)))


def correlated(random: np.random.Generator, count: int) -> Samples:
    """Each value hangs on the one before (0.5), with the same distribution as if it did not."""
    return np.asarray(np.exp(0.5 * remembering(random, count, 0.5)))


def remembering(random: np.random.Generator, count: int, memory: float) -> Samples:
    noise = random.standard_normal(count + 100) * np.sqrt(1 - memory**2)
    return np.asarray(signal.lfilter([1], [1, -memory], noise)[100:])


def identical(
    simulate: Simulation, seed: int, *, rounds: int, calls: int, host: Host | None = None
) -> tuple[list[Block], list[Block]]:
    """Two that do not differ, by closed loops of one call at a time, in the order that the comparison asks for."""
    random, count = np.random.default_rng((seed, 1)), 2 * rounds  # nothing in it follows the order
    slowed = _slowed(random, count, host or Host())
    own = {name: (host or Host()).own * remembering(random, rounds, 0.7) for name in "ab"}
    latencies = simulate(random, count * calls).reshape(count, calls)
    blocks: dict[str, list[Block]] = {"a": [], "b": []}
    for number, names in enumerate(order("ab", rounds, seed)):
        for place, name in enumerate(names):
            turn = 2 * number + place
            here = latencies[turn] * np.exp(slowed[turn] + own[name][number])
            blocks[name].append(Block(1 / float(here.mean()), here))
    return blocks["a"], blocks["b"]


def _slowed(random: np.random.Generator, count: int, host: Host) -> Samples:
    """The logarithm, by block."""
    through = np.arange(count) / count
    slow = host.drift * through * random.choice([-1, 1]) + host.wave * np.sin(
        20 * through + random.uniform(0, 2 * np.pi)
    )
    slow += host.wandering * remembering(random, count, 0.8)
    return np.asarray(slow + host.loss * (random.random(count) < host.noisy))


def slower(blocks: list[Block], times: float) -> list[Block]:
    return [Block(block.rate / times, block.latencies * times) for block in blocks]
