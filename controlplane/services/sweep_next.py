# What a sweep does next, by its rows: the round to measure, candidates to ask for, or nothing, and then its answer.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_answer import Conclusion, concluded, fates
from controlplane.domain.sweep_asking import asked_and_raced, predicted_and_raced
from controlplane.domain.sweep_compare import figures_seen, rates_beside
from controlplane.domain.sweep_course import Ahead, Known, Raced, Rounds, Terms, raced, terms_of
from controlplane.domain.sweep_figures import RATE, THROUGHPUT
from controlplane.domain.sweep_rates import BEGIN, Sought, sought
from controlplane.domain.sweep_rounds import BenchModel, Measurement, RoundOrder, Stage
from controlplane.domain.sweep_search import words
from controlplane.domain.sweep_spec import Method, spec_from_json
from controlplane.domain.sweep_values import short
from controlplane.domain.sweeps import Sweep, Taken, Trial
from controlplane.services.ports import ConfigCodec
from controlplane.services.sweep_drafts import Material
from controlplane.services.sweep_optuna import Asked, next_candidates
from controlplane.services.sweep_predicted import predicted_candidates

_LEAST = 0.6
"""Of the time, for the first round: everything is loaded in it."""
_SETTLING_SECONDS = 15.0
_NEAR = 1.25
"""Of what was answered while the rate rose: who is said to hold much more was begun with beyond what it can do."""
_STAGES = {
    Stage.RACE: "race",
    Stage.CONFIRM: "finalists are measured again",
    Stage.RATE: "highest rate",
    Stage.COMPARE: "comparison",
}


@dataclass(frozen=True, slots=True)
class Next:
    """Where a sweep stands. `ahead` is what to measure; `asks` is how many candidates to ask for; with neither it is over."""

    sweep: Sweep
    trials: tuple[Trial, ...]
    measurements: tuple[Measurement, ...]
    terms: Terms
    raced: Raced
    sought: Sought | None

    @property
    def ahead(self) -> Ahead | None:
        return self.raced.ahead or (None if self.sought is None else self.sought.ahead)

    @property
    def asks(self) -> int:
        return self.raced.asks

    @property
    def failures(self) -> dict[str, str]:
        """Candidates that could not be measured on, and why, as far as blocks tell."""
        found = {name: why for look in self.raced.looks for name, why in look.failed.items()}
        rates = {} if self.sought is None else self.sought.found
        return found | {name: one.failure for name, one in rates.items() if one.failure}

    def fates(self) -> dict[int, tuple[JsonObject, ...]]:
        return fates(self.terms, self.trials, self.raced, None if self.sought is None else self.sought.found)

    def conclusion(self) -> Conclusion:
        return concluded(self.terms, self.trials, self.measurements, self.raced, self.sought)

    @property
    def seconds(self) -> float:
        """How long the round ahead may take before its blocks are given up: what comes after it needs its time too."""
        ahead, left = self.ahead, self.raced.budget.left
        if ahead is None:
            return 0.0
        least = 2 * sum(block.seconds for block in ahead.blocks) + _SETTLING_SECONDS
        if ahead.number == 1:
            least = max(least, _LEAST * left)
        return max(left - self.raced.reserve, least)

    def progress(self, done: int, seconds: float = 0.0) -> JsonObject:
        """With `done` blocks measured, for `seconds` since the round ahead began."""
        ahead = self.ahead
        planned = sum(stage.blocks for stage in self.terms.stages.all)
        known = len(self.measurements) + (0 if ahead is None else len(ahead.blocks))
        left = min(self.raced.budget.left, int(str(self.sweep.plan["seconds"])) - self.raced.budget.spent)
        over = ahead is None and not self.asks
        return {
            "stage": "done" if over else "choosing more candidates" if ahead is None else _STAGES[ahead.stage],
            "round": 0 if ahead is None else ahead.number,
            "done": done,
            "ordered": done if over else max(planned, known),
            "seconds_left": 0 if over else max(0, round(left - seconds)),
            "leader": self._leader(),
        }

    def _leader(self) -> str:
        """The best so far, and its first figure: while rates are looked for, the one that is ahead in these."""
        left, rates = self.raced.standing.left, {} if self.sought is None else self.sought.found
        if not self.raced.looks or not left:
            return ""
        ahead = max(rates, key=lambda name: (rates[name].confirmed, rates[name].good), default=left[0])
        trial = next(one for one in self.trials if one.candidate == ahead)
        said = ", ".join(f"{name} {value}" for name, value in trial.parameters.items()) or "the base config"
        seen = next((one for one in self.raced.standing.finalists if one.name == ahead), None)
        figure = self.terms.asked.figures[0].name
        shown = f": {figure} {words(seen.figures[figure])}" if seen is not None and figure in seen.figures else ""
        if ahead in rates and rates[ahead].good > 0:
            shown = f": about {short(rates[ahead].good)} requests a second"
        return f"trial {trial.name} ({said}){shown}"


def where(
    sweep: Sweep,
    trials: Sequence[Trial],
    taken: Sequence[Taken],
    material: Material,
    *,
    exhausted: bool = False,
    known: Known | None = None,
) -> Next:
    """`exhausted`: whoever is asked for candidates knows no more; `known` is what looks at the same sweep share."""
    terms = terms_of(sweep, material.subject.sizes, material.memory_bytes)
    rounds = Rounds(terms, taken, trials, known)
    if terms.method is Method.OPTUNA:
        found = asked_and_raced(rounds, trials, exhausted=exhausted)
    elif terms.method is Method.RACING:
        found = predicted_and_raced(rounds, trials, exhausted=exhausted)
    else:
        found = raced(rounds, [one.candidate for one in trials if not one.refused])
    measurements = tuple(one.measurement for one in taken)
    starts, at = {}, None
    if terms.asked.finds_rate and found.ahead is None and not found.asks:
        starts = _starts(terms, found, measurements)
    if starts:
        at = sought(rounds, starts, rates_beside(terms.asked, list(starts), measurements))
        found = replace(found, budget=rounds.budget())
    now = Next(sweep, tuple(trials), measurements, terms, found, at)
    # what was just measured is not written to the trials yet: whoever goes on after a kill is to ask alike
    failures = now.failures
    told = (replace(one, failure=one.failure or failures.get(one.candidate, "")) for one in trials)
    return replace(now, trials=tuple(told))


def order_of(now: Next, material: Material) -> RoundOrder:
    """The round ahead, as a bench gets it."""
    ahead, asked = now.ahead, now.terms.asked
    assert ahead is not None
    by_digest = {one.candidate: one for one in now.trials}
    trials = [by_digest[name] for name in ahead.candidates]
    return RoundOrder(
        sweep=now.sweep.id,
        number=ahead.number,
        stage=ahead.stage,
        models=tuple(
            BenchModel(one.candidate, one.version, one.config or {}, material.manifests[one.version], material.beside)
            for one in trials
        ),
        requests={version: material.requests[version] for version in sorted({one.version for one in trials})},
        blocks=ahead.blocks,
        percents=asked.percents,
        percent=None if asked.bound is None else asked.bound.percent,
        bound_ms=None if asked.bound is None else asked.bound.ms,
    )


def more(now: Next, material: Material, codec: ConfigCodec) -> Asked:
    """The candidates to measure next. Raises RuntimeUnavailable where optuna is asked for and not installed."""
    spec = spec_from_json(now.sweep.spec)
    if now.terms.method is Method.RACING:
        return predicted_candidates(
            material.space,
            material.subject,
            codec,
            now.trials,
            now.raced.seen,
            figures=now.terms.asked.race,
            seed=spec.search.seed,
            count=now.asks,
            rows=int(str(now.sweep.load["rows"])),
        )
    return next_candidates(
        material.space,
        material.subject,
        codec,
        now.trials,
        now.raced.seen,
        figures=now.terms.asked.race,
        hard=now.terms.asked.race_hard,
        seed=spec.search.seed,
        count=now.asks,
        rows=int(str(now.sweep.load["rows"])),
    )


def _starts(terms: Terms, found: Raced, measurements: Sequence[Measurement]) -> dict[str, float]:
    """At which rate each finalist begins: what it showed; where it showed nothing, what it answered at the most. Where the time was
    too short for finalists to be measured again by a rising rate, a constant one is the measurement that counts."""
    standing = found.standing
    again = {one.name for one in standing.finalists}
    names = [name for name in standing.left if name in again]
    if not standing.finalists and terms.asked.ramps:
        names = list(standing.left[: terms.rules.finalists])
    if terms.asked.rate is not None:
        most = max(float(each.text) for each in terms.asked.steps)
        return dict.fromkeys(names, most / BEGIN)
    # the first rate is the same however many follow
    before = [one for one in measurements if one.stage is not Stage.RATE]
    seen = figures_seen(terms.asked, before)
    starts = {}
    for name in names:
        figures = seen.get(name, {})
        shown = figures.get(RATE) or figures.get(THROUGHPUT)
        own = [one.completed / one.seconds for one in before if one.order.candidate == name and one.seconds > 0]
        answered = max(own, default=0.0)
        start = answered if shown is None else min(shown.value, _NEAR * answered) if terms.asked.ramps else shown.value
        if start > 0:
            starts[name] = start
    return starts
