# A bench that simulates: its capacity for each config is known.
from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from clients.load.statistics import fewest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.config_tree import message, messages, number, parameter
from controlplane.domain.fingerprints import Fingerprint, Host, Serving
from controlplane.domain.sweep_rounds import (
    BenchModel,
    BlockOrder,
    CandidateFailure,
    Measurement,
    RoundOrder,
    RoundResult,
    Verdict,
)
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweeps import Sweep
from controlplane.services.ports import ArtifactStore

FINGERPRINT = Fingerprint(
    Host("a cpu", 4, 4, 4000, None, 16 << 30, (), "6.1"), Serving("2.51.0"), True, (), "0.1", "abc"
)


@dataclass
class SimulatedTime:
    """What a bench spends; blocks say when they began and ended by it."""

    instant: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.instant

    def spend(self, seconds: float) -> None:
        self.instant += timedelta(seconds=round(seconds, 6))


def capacity(config: JsonObject) -> float:
    """The most requests a second of one config, on four cores: two instances of eight rows and one thread are best."""
    count = sum(number(group.get("count")) for group in messages(config.get("instance_group"))) or 1
    rows = number(config.get("max_batch_size")) or 1
    threads = int(parameter(config, "intra_op_thread_count") or "1")
    delay = number(message(config.get("dynamic_batching")).get("max_queue_delay_microseconds"))
    busy = count * threads / 4
    speed = {1: 100.0, 2: 190.0, 4: 170.0}.get(count, 90.0) * {1: 1.0, 2: 1.2}.get(threads, 1.1)
    return speed * (1 + 0.6 * math.log2(rows) / 3) * (1 - 0.00005 * delay) / max(busy, 1.0)


class Killed(BaseException):
    """As SIGKILL: nothing after it runs in this process."""


@dataclass
class SimulatedBench:
    """A queue in front of each candidate, whose p99 is 10 ms at `capacity`, with seeded noise for each block. `broken` cannot be
    loaded; after `kill_after` blocks everything is gone: before the next one is told, or, where it is `told`, after."""

    time: SimulatedTime = field(default_factory=SimulatedTime)
    noise: float = 0.03
    broken: Mapping[int, str] = field(default_factory=dict)
    """By the number of instances, and why."""
    kill_after: int | None = None
    told: bool = False
    load_seconds: float = 1.0
    measured: int = 0
    orders: list[RoundOrder] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    opened: int = 0
    between: Callable[[Measurement], None] | None = None

    @property
    def fingerprints(self) -> Mapping[str, Fingerprint]:
        return {FINGERPRINT.digest: FINGERPRINT}

    @contextmanager
    def open(self, sweep: Sweep) -> Iterator[SimulatedBench]:
        del sweep
        self.opened += 1
        self.loaded = set()
        self.time.spend(2)
        yield self

    def measure(
        self,
        order: RoundOrder,
        store: ArtifactStore,
        *,
        done: Callable[[Measurement], None],
        go_on: Callable[[], None],
    ) -> RoundResult:
        del store
        self.orders.append(order)
        models = {model.candidate: model for model in order.models}
        self.time.spend(self.load_seconds * len(models.keys() - self.loaded))
        self.loaded = set(models)
        found = []
        for block in order.blocks:
            go_on()
            measurement = self._block(order, block, models[block.candidate])
            over = self.kill_after is not None and self.measured >= self.kill_after
            if over and not self.told:
                raise Killed
            done(measurement)
            self.measured += 1
            if over:
                raise Killed
            if self.between is not None:
                self.between(measurement)
            found.append(measurement)
        failed = [
            CandidateFailure(model.candidate, why, f"log of {why}")
            for model in order.models
            if (why := self._why(model))
        ]
        return RoundResult(tuple(found), tuple(failed), FINGERPRINT)

    def _why(self, model: BenchModel) -> str:
        return self.broken.get(number(messages(model.config.get("instance_group"))[0].get("count")), "")

    def _block(self, order: RoundOrder, block: BlockOrder, model: BenchModel) -> Measurement:
        began = self.time.now()
        plain = Measurement(
            order.sweep, order.number, order.stage, block, Verdict.NOT_MEASURED, (), began, began, fingerprint=FINGERPRINT.digest
        )  # fmt: skip
        if why := self._why(model):
            return replace(plain, reasons=(why,))
        self.time.spend(block.seconds + 0.2)
        text = f"{block.seed}:{block.candidate}:{order.number}"
        dice = random.Random(hashlib.sha256(text.encode()).hexdigest())
        most = capacity(model.config) * math.exp(dice.gauss(0, self.noise / max(block.seconds, 0.25) ** 0.5))
        rate, figures = _shown(order, block, most)
        answers = max(2, int(rate * block.seconds))
        held = figures.get("latency_ms p99", 0) < 1000
        server = {"succeeded": answers, "total_ns": answers * 5_000_000, "queue_ns": answers * int(3e6 * rate / most), "infer_ns": answers * 2_000_000}  # fmt: skip
        return replace(
            plain,
            verdict=Verdict.VALID if held else Verdict.UNSTABLE,
            finished_at=self.time.now(),
            seconds=block.seconds,
            offered=answers,
            sent=answers,
            completed=answers,
            figures=figures,
            server=server,
            batches={4: answers // 4 or 1},
        )


def _shown(order: RoundOrder, block: BlockOrder, most: float) -> tuple[float, dict[str, float]]:
    """At which rate it answered, and what a block shows: p99 is 10 ms at the most that it does, and grows beyond any bound above."""
    if block.step.shape is Shape.FIND_RATE:
        return most * 0.8, {"sustainable_rate": most * 1.15}
    if block.step.shape in {Shape.RATE, Shape.RAMP}:
        ends = [float(one) for one in block.step.text.split(":")[:2]]
        asked = sum(ends) / len(ends)
        share = asked / most
        p99 = 2 + 8 * share**4 if share < 1.2 else 5000.0
        able = [percent for percent in order.percents if asked * block.seconds >= fewest(percent)]
        shown = {f"latency_ms p{percent:g}": p99 * (percent / 99) ** 4 for percent in able}
        return min(asked, most), {"throughput": min(asked, most), **shown}
    side = float(block.step.text)
    rate = most * side / (side + 2)
    return rate, {"throughput": rate, "latency_ms p99": 1000 * side / rate}
