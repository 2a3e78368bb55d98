# The answer of a sweep: the front, the choice, and its reason in words; and what was decided of each trial. Pure.
"""An answer is JSON without floats: intervals are [value, low, high] as text, `inf` where there is no end. It has `chosen` (a trial's name or
null), `front` (the preferred first), `reason`, `because` (what a reviewer can check), `figures` and `findings` of the
finalists, `dominated` (by whom, and why), `highest_rate`, `unseen` (objectives that nobody measured) and `notes`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal

from clients.load.statistics import Interval
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_baseline import beside_base
from controlplane.domain.sweep_blocks import Block, trial
from controlplane.domain.sweep_compare import LEVEL
from controlplane.domain.sweep_course import Raced, Terms
from controlplane.domain.sweep_figures import DRAW, LATENCY, RATE, THROUGHPUT, Asked, is_to_sustain, percentile
from controlplane.domain.sweep_plan import too_few
from controlplane.domain.sweep_rates import STOLEN, Found, Sought, disturbed
from controlplane.domain.sweep_reasons import reasons, shares_of
from controlplane.domain.sweep_rounds import Measurement, Stage, Verdict
from controlplane.domain.sweep_search import Advantage, Answer, Figure, Met, answer, apart, words
from controlplane.domain.sweep_search import Trial as Seen
from controlplane.domain.sweep_values import plain
from controlplane.domain.sweeps import Sweep, Trial

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNCONFIRMED = 5
"""So many of those that are left are looked at where the time did not suffice to measure finalists again."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`fates` are by trial number; `message` is the answer in one line."""

    answer: JsonObject
    fates: Mapping[int, tuple[JsonObject, ...]] = field(default_factory=dict)
    message: str = ""


def concluded(
    terms: Terms,
    trials: Sequence[Trial],
    measurements: Sequence[Measurement],
    raced: Raced,
    sought: Sought | None,
) -> Conclusion:
    asked = terms.asked
    rates = {} if sought is None else sought.found
    finalists = _finalists(raced, rates, asked)
    figures = asked.figures
    if asked.finds_rate and not asked.ramps:
        figures = (*figures, Figure(RATE, True, figures[0].margin))
    compare = _compare(finalists, raced.standing.advantage)
    found = answer(finalists, figures, asked.objectives, compare)
    by_digest = {one.candidate: one for one in trials}
    name = _Names(by_digest)
    chosen = None if found.chosen is None else by_digest[found.chosen]
    notes = [*raced.notes, *(() if sought is None else sought.notes)]
    if not raced.standing.finalists and finalists and not any(one.confirmed for one in rates.values()):
        notes.append("no finalist was measured again: who was ahead owes a part of it to luck")
    because = list[Json]()
    if chosen is None:
        notes += [_short(terms)]
    else:
        because = _because(terms, trials, measurements, chosen, rates)
        beside = beside_base(asked, trials, measurements, chosen, rates)
        if beside is not None:
            (because if beside.better else notes).insert(0, beside.said)
        own = _rests_on(measurements, chosen, rates)
        notes += [_late(own), _failing(own)]
    notes += [*_drawn(asked), _stolen(measurements)]
    made: JsonObject = {
        "schema": 1,
        "chosen": None if chosen is None else chosen.name,
        "front": [name(one) for one in found.front],
        "reason": name.said(found.reason),
        "because": because,
        "figures": {name(one.name): {f: _json(i) for f, i in sorted(one.figures.items())} for one in finalists},
        "findings": {name(who): [dict(asdict(one)) for one in said] for who, said in found.findings.items()},
        "dominated": {name(who): name.said(why) for who, why in found.dominated.items()},
        "highest_rate": None if chosen is None else _highest(terms, rates.get(chosen.candidate), rates),
        "unseen": [one.name for one in asked.unseen],
        "notes": [name.said(one) for one in notes if one],
    }
    return Conclusion(made, fates(terms, trials, raced, rates, found), _message(made))


def fates(
    terms: Terms,
    trials: Sequence[Trial],
    raced: Raced,
    rates: Mapping[str, Found] | None = None,
    found: Answer | None = None,
) -> dict[int, tuple[JsonObject, ...]]:
    """What was decided of each trial so far, in order."""
    name = _Names({one.candidate: one for one in trials})
    last = len(raced.looks)
    listed: dict[str, list[JsonObject]] = {}

    def add(who: str, look: int, fate: str, reason: str) -> None:
        listed.setdefault(who, []).append({"look": look, "fate": fate, "reason": name.said(reason)})

    for one in raced.standing.decisions:
        add(one.candidate, one.look, one.fate.value, one.reason)
    for who, rate in (rates or {}).items():
        add(who, last + 1, "highest rate", _rate_words(rate, terms.asked))
    if found is not None:
        for who, seen in found.findings.items():
            open_ = [f"{one.objective}: {one.reason}" for one in seen if one.met is not Met.MET]
            if who == found.chosen:
                add(who, last + 2, "chosen", found.reason)
            elif who in found.front:
                add(who, last + 2, "on the front", f"{found.chosen} is preferred: {found.reason}")
            elif who in found.dominated:
                add(who, last + 2, "dominated", found.dominated[who])
            elif (beaten := _beaten(who, rates or {})) is not None:
                add(who, last + 2, "lower rate", beaten)
            elif not open_:
                add(who, last + 2, "not told apart", found.reason)
            else:
                add(who, last + 2, "not shown to meet the objectives", "; ".join(open_))
    return {one.number: tuple(listed.get(one.candidate, ())) for one in trials}


def figures_of_answer(sweep: Sweep) -> dict[str, dict[str, Interval]]:
    """Of the finalists of a finished sweep, by the trial's name; empty before the end."""
    figures = (sweep.answer or {}).get("figures")
    if not isinstance(figures, Mapping):
        return {}
    return {
        name: {figure: interval_of(ends) for figure, ends in own.items()}
        for name, own in figures.items()
        if isinstance(own, Mapping)
    }


def interval_of(ends: Json) -> Interval:
    """As an answer has it."""
    assert isinstance(ends, list | tuple)
    value, low, high = (float(str(end)) for end in ends)
    return Interval(value, low, high)


def _finalists(raced: Raced, rates: Mapping[str, Found], asked: Asked) -> list[Seen]:
    """With the figures that the answer rests on. A ramp only tells where to look: what counts is what constant rates showed."""
    seen = list(raced.standing.finalists)
    if not seen:
        blocks: dict[tuple[int, int], dict[str, Block]] = {}
        for number, look in enumerate(raced.looks, 1):
            for block in look.blocks:
                blocks.setdefault((number, block.turn), {})[block.candidate] = block
        seen = [trial(name, blocks, LEVEL) for name in raced.standing.left[:_UNCONFIRMED]]
    found = []
    for one in seen:
        rate = rates.get(one.name)
        shown = rate.figures(asked.objectives) if rate is not None and rate.confirmed else {}
        if rate is None or rate.failure or (rate.good <= 0 and (asked.ramps or math.isinf(rate.bad))):
            found.append(one if rate is None or rate.failure else replace(one, untold=_rate_words(rate, asked)))
        elif asked.ramps:
            answers = sum(block.completed for block in rate.again)
            found.append(Seen(one.name, shown or {RATE: _unsure(rate, rates)}, answers))
        else:
            highest = rate.interval if rate.confirmed else _unsure(rate, rates)
            figures = {**shown, **one.figures, RATE: highest}
            known = rate.settled > 0 or any(each.confirmed for each in rates.values())
            if known and asked.rate is not None and highest.value < asked.rate:
                figures |= _fallen(figures, highest)
            found.append(Seen(one.name, figures, one.answers))
    return found


def _fallen(figures: Mapping[str, Interval], highest: Interval) -> dict[str, Interval]:
    """What was asked for held before, and not any more when rates were looked for: then nobody can tell."""
    open_ = {name: replace(one, high=math.inf) for name, one in figures.items() if name.startswith(LATENCY)}
    return {**open_, THROUGHPUT: highest}


def _unsure(rate: Found, rates: Mapping[str, Found]) -> Interval:
    """Of one that was not measured again. A rate to recommend is lower than what held as often as not; so, beside one that was measured
    again, it is as much lower as that one's: by turns is known how far they are apart."""
    best = max((one for one in rates.values() if one.confirmed), key=lambda one: one.good, default=None)
    value = rate.good
    if best is not None:
        both = rate.settled > 0 and best.settled > 0
        value = best.good * rate.settled / best.settled if both else min(rate.good, best.good)
    return Interval(value, 0.0, rate.bad)


def _compare(finalists: Sequence[Seen], by_turns: Advantage | None) -> Advantage:
    """Rates were found for each by itself; all else was measured by turns."""
    alone = apart(finalists)
    if by_turns is None:
        return alone
    return lambda figure, one, other: (alone if figure.name == RATE else by_turns)(figure, one, other)


def _because(
    terms: Terms,
    trials: Sequence[Trial],
    measurements: Sequence[Measurement],
    chosen: Trial,
    rates: Mapping[str, Found],
) -> list[Json]:
    """Where its time goes, and what each neighbour does worse."""
    rate = rates.get(chosen.candidate)
    own = [one for one in measurements if one.order.candidate == chosen.candidate]
    where = "where it was measured again"
    if rate is not None and rate.confirmed:
        own, where = list(rate.again), f"at {rate.good:g} requests a second"
    else:
        own = [one for one in own if one.stage is Stage.CONFIRM] or own
    shares = shares_of(own)
    lines: list[Json] = []
    if rate is not None and rate.good > 0:
        lines.append(_rate_words(rate, terms.asked))
    if shares is not None:
        lines.append(f"{where}: {shares.words}")
    lines += reasons(terms.asked, trials, measurements, chosen)
    return lines


def _rests_on(measurements: Sequence[Measurement], chosen: Trial, rates: Mapping[str, Found]) -> list[Measurement]:
    rate = rates.get(chosen.candidate)
    if rate is not None and rate.confirmed:
        return list(rate.again)
    return [one for one in measurements if one.order.candidate == chosen.candidate and one.stage is Stage.CONFIRM]


def _late(own: Sequence[Measurement]) -> str:
    """How many of the blocks the generator sent late. They count: it only makes a candidate look slower."""
    late = sum(one.verdict is Verdict.CLIENT_LIMITED for one in own)
    if not late:
        return ""
    return (
        f"in {late} of the {len(own)} blocks that the choice rests on the load generator itself was late, which counts against the "
        "candidate: on a host with processors to spare it may do better"
    )


def _failing(own: Sequence[Measurement]) -> str:
    failing = [one for one in own if one.verdict is Verdict.ERRORS]
    if not failing:
        return ""
    return (
        f"in {len(failing)} of the {len(own)} blocks that the choice rests on requests failed, {sum(one.failed for one in failing)} in all, "
        f"which count as beyond any latency: {failing[0].failure or '; '.join(failing[0].reasons)}"
    )


def _drawn(asked: Asked) -> list[str]:
    """Where a bound is judged with slack, so that nobody wonders at the number in the findings."""
    return [
        f"{one.name} asks for {plain(Decimal(one.bound) / DRAW)} requests a second, and counts as met from {one.bound} on: how many "
        "arrive in a block is drawn"
        for one in asked.objectives
        if asked.drawn and is_to_sustain(one)
    ]


def _stolen(measurements: Sequence[Measurement]) -> str:
    """Of the blocks that decided, those of the highest rate where it was looked for, in how many the host was not all there."""
    own = [one for one in measurements if one.stage is Stage.RATE] or measurements
    stolen = [one.steal_ppm or 0 for one in own if disturbed(one)]
    if not stolen:
        return ""
    what = "blocks of the highest rate" if own[0].stage is Stage.RATE else "blocks"
    return (
        f"in {len(stolen)} of the {len(own)} {what} the hypervisor took more than {STOLEN:.0%} of the processors away, at the most "
        f"{max(stolen) / 1e4:.0f} %: more may hold on a quiet host, or with sweeps.keep_awake in the settings of the bench"
    )


def _short(terms: Terms) -> str:
    """Where a block of the finalists is too short for what objectives name."""
    rate, each, need = terms.asked.rate, terms.stages.confirm.seconds, terms.asked.answers
    if rate is None or rate * each >= need:
        return ""
    hard = [one for one in terms.asked.objectives if one.weight is None]
    percents = [one for objective in hard if (one := percentile(objective)) is not None]
    return too_few(f"p{max(percents):g}", need, each, rate)


def _beaten(who: str, rates: Mapping[str, Found]) -> str | None:
    """By whose rate, that was measured again, so that its own did not have to be."""
    own = rates.get(who)
    if own is None or own.confirmed or own.failure:
        return None
    best = max(rates, key=lambda name: rates[name].good if rates[name].confirmed else 0.0)
    if not rates[best].confirmed:
        return None
    if own.settled and rates[best].settled:
        return f"by turns, it held {own.settled:.6g}/s as often as not, and {best} {rates[best].settled:.6g}/s"
    if own.bad > rates[best].good:
        return None
    return f"{own.bad:g}/s did not hold, and {best} holds {rates[best].good:g}/s"


def _rate_words(rate: Found, asked: Asked) -> str:
    if rate.failure:
        return f"it could not be measured on: {rate.failure}"
    if rate.good <= 0 and math.isinf(rate.bad):
        return "the time did not suffice to look for its highest rate"
    if rate.good <= 0:
        return f"no rate held: {rate.bad:g}/s was the lowest that was tried"
    missed = "no higher rate missed" if math.isinf(rate.bad) else f"{rate.bad:g}/s did not"
    often = f"{rate.settled:.6g}/s held as often as not" if rate.settled else ""
    if not rate.confirmed:
        return (
            f"{often}, no lower rate is confirmed"
            if often
            else f"{rate.good:.6g}/s held, {missed}; it was not measured again"
        )
    said = "; ".join(filter(None, (f"{rate.good:g}/s held, {missed}", often)))
    shown = "; ".join(
        f"{name} {words(one)}" for name, one in rate.figures(asked.objectives).items() if name.startswith("latency")
    )
    blocks = len(rate.again)
    held = "all held" if not rate.missed else f"{blocks - rate.missed} held"
    above = f" ({rate.above} of them at higher rates)" if rate.above else ""
    return f"{said}; measured again in {blocks} blocks{above}, {held}: {shown}"


def _highest(terms: Terms, rate: Found | None, rates: Mapping[str, Found]) -> JsonObject | None:
    bound = terms.asked.bound
    if rate is None or rate.good <= 0 or bound is None:
        return None
    return {
        "rate": _json(rate.interval if rate.confirmed else _unsure(rate, rates)),
        "confirmed": rate.confirmed,
        "objective": bound.objective,
        "percent": f"{bound.percent:g}",
        "bound_ms": f"{bound.ms:g}",
    }


def _message(made: JsonObject) -> str:
    if made["chosen"] is None:
        return f"nothing is chosen: {made['reason']}"
    highest = made["highest_rate"]
    if isinstance(highest, Mapping):
        rate = interval_of(highest["rate"])
        about = "" if highest["confirmed"] else "perhaps "
        said = f"trial {made['chosen']}: {about}{rate.value:g} requests a second at p{highest['percent']} <= {highest['bound_ms']} ms"
        return said if highest["confirmed"] else f"{said}, which was not measured again"
    named, reason = f"trial {made['chosen']}", str(made["reason"])
    return reason if reason.startswith(named) else f"{named}: {reason}"


def _json(interval: Interval) -> list[Json]:
    return [repr(float(one)) for one in (interval.value, interval.low, interval.high)]


class _Names:
    """Candidates are told apart by their digests; people by the trial's name."""

    def __init__(self, trials: Mapping[str, Trial]) -> None:
        self._trials = trials

    def __call__(self, digest: str) -> str:
        return self._trials[digest].name

    def said(self, text: str) -> str:
        return _DIGEST.sub(lambda match: f"trial {self(match[0])}" if match[0] in self._trials else match[0], text)
