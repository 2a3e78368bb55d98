# The course of a sweep some of whose candidates are asked for on the way, until the finalists of all are measured again. Pure.
"""Rounds lie minutes apart: a reference links them (sweep_together.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from controlplane.domain.canonical import digest_bytes
from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_course import ASKED_AT_ONCE, COSTS, Raced, Rounds, in_groups, look_at, raced, reserved
from controlplane.domain.sweep_figures import look_of
from controlplane.domain.sweep_racing import Look, race
from controlplane.domain.sweep_rounds import Stage
from controlplane.domain.sweep_together import together
from controlplane.domain.sweeps import Trial


def asked_and_raced(rounds: Rounds, trials: Sequence[Trial], *, exhausted: bool) -> Raced:
    """`trials` in the order in which they were asked for, the base configs first; `exhausted`: nobody knows any more.

    The reference of a round is the first candidate that failed in none before it, and that leaves memory for others. Who fails later is no
    reason to lay out rounds that are over in another way: their rows are found by place. For that a batch is filled before it is
    measured, unless nobody knows any more: then it is the last."""
    terms = rounds.terms
    tried = [one for one in trials if not one.refused]
    names = [one.candidate for one in tried]
    looks: list[Look] = []
    references: list[str | None] = []
    able: list[str] = []
    planned = terms.stages.race[0]
    lacks = 0  # of the last batch
    for batch in _batches(tried):
        lacks = (
            0
            if tried[0].candidate in batch
            else min(ASKED_AT_ONCE, terms.candidates - len(tried) + len(batch)) - len(batch)
        )
        if lacks > 0 and not exhausted and not rounds.begun:
            return Raced(race(terms.rules, names, []), (), rounds.budget(), asks=lacks, seen=_seen(looks))
        found, missing = in_groups(
            rounds,
            Stage.RACE,
            lambda names, number: [_drawn(terms.seed, number, turn, names) for turn in range(planned.turns)],
            batch,
            seconds=planned.seconds,
            able=able,
        )
        if missing is not None:
            standing = race(terms.rules, names, [])
            return Raced(standing, (), rounds.budget(), missing, seen=_seen(looks))
        looks += [look for look, _ in found]
        references += [reference for _, reference in found]
        lost = {name for look, _ in found for name in look.failed}
        able = [name for name in (*able, *batch) if name not in lost]
    budget = rounds.budget()
    each = (ASKED_AT_ONCE + 1) * planned.turns * planned.steps * (planned.seconds + budget.overhead)
    time = budget.left - budget.of(terms.stages.confirm) - budget.of(terms.stages.rate)
    exhausted = exhausted or lacks > 0
    if not exhausted and len(tried) < terms.candidates and (not looks or time > each):
        asks = min(ASKED_AT_ONCE, terms.candidates - len(tried))
        return Raced(race(terms.rules, names, []), (), budget, asks=asks, seen=_seen(looks))
    end = raced(rounds, names, [together(looks, references)])
    short = f"{len(tried)} of {terms.candidates} candidates were asked for: the time did not suffice for more"
    notes = (short,) if not exhausted and len(tried) < terms.candidates else ()
    return replace(end, seen=_seen(looks), notes=(*notes, *end.notes))


def predicted_and_raced(rounds: Rounds, trials: Sequence[Trial], *, exhausted: bool) -> Raced:
    """First those that are spread over the space; then those that they predict to be better, with one of the first as the reference;
    then all of them race. Without the time for that, or where nobody knows any, the first race alone.

    The reference is not the best of the first: that one was lucky there, and the others of that round would look worse by it."""
    terms, planned = rounds.terms, rounds.terms.stages.predicted
    tried = [one.candidate for one in trials if not one.refused]
    names, later = tried[: terms.candidates], tried[terms.candidates :]
    begin = rounds.standing(terms.rules, names, [])
    if planned is None or begin.next is None:
        return raced(rounds, names)
    budget = rounds.budget()
    first, missing = look_at(rounds, begin.next, begin.next.seconds)
    if missing is not None:
        return Raced(begin, (), budget, missing, reserve=reserved(terms, budget, []))
    standing = rounds.standing(terms.rules, names, [first])
    reference = next((name for name in names if name not in first.failed), None)
    if reference is None:
        return raced(rounds, names, [first])
    budget = rounds.budget()
    reserve = reserved(terms, budget, [first])
    if not later:
        needed = budget.of(planned) + planned.loads * COSTS.load
        if not exhausted and budget.left - budget.of(terms.stages.confirm) - reserve >= 2 * needed:
            return Raced(standing, (first,), budget, asks=planned.loads, seen=_seen([first]))
        found = raced(rounds, names, [first])
        why = "no other is worth it" if exhausted else "there was no time for others"
        return replace(found, notes=(f"only the first {len(names)} candidates were tried: {why}", *found.notes))
    fit = rounds.beside([reference, *later, *standing.left])[0]
    later = [name for name in later if name in fit]
    steps = [(step, planned.seconds) for step in terms.asked.steps]
    turns = [_drawn(terms.seed, rounds.number + 1, turn, [*later, reference]) for turn in range(planned.turns)]
    rows, missing = rounds.measured(Stage.RACE, turns, lambda _: steps, fit)
    if missing is not None:
        return Raced(standing, (first,), budget, missing, seen=_seen([first]), reserve=reserve)
    return raced(rounds, [*names, *later], [together([first, look_of(terms.asked, rows)], [None, reference])])


def _batches(tried: Sequence[Trial]) -> list[list[str]]:
    base = [one.candidate for one in tried if one.base]
    others = [one.candidate for one in tried if not one.base]
    found = [base] if base else []
    return found + [others[at : at + ASKED_AT_ONCE] for at in range(0, len(others), ASKED_AT_ONCE)]


def _drawn(seed: int, number: int, turn: int, names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: digest_bytes(f"{seed}:{number}:{turn}:{name}".encode()))


def _seen(looks: Sequence[Look]) -> Mapping[tuple[int, int], Mapping[str, Block]]:
    found: dict[tuple[int, int], dict[str, Block]] = {}
    for number, look in enumerate(looks, 1):
        for block in look.blocks:
            found.setdefault((number, block.turn), {})[block.candidate] = block
    return found
