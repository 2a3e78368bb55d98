# The search method `optuna`: which candidates to measure next, asked of a study that is made of the rows each time.
"""TPE, for several figures at once as well (Ozaki et al. 2022, *Multiobjective tree-structured Parzen estimator*, JAIR 73), with hard
objectives as constraints. NSGA-II was the other choice: it needs generations of tens, and a sweep has tens of candidates. A joint
estimator of all dimensions (`multivariate`) was tried too: on simulated surfaces it was no sooner, and took twice as long.

A study lives in memory, for as long as one question. What it is told are our rows, so that the same rows and seed give the same
candidates, and a sweep that was killed goes on as if it had not been. Optuna's own storage is not used: both it and ours have a
table `alembic_version`.

Rounds lie minutes apart, and the machine drifts between them. So that figures of different rounds can be held against each
other, each round is to have the *reference* in it: what is told of a candidate is its ratio to the reference in the same turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.domain.canonical import Json, digest_bytes
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_blocks import Turns
from controlplane.domain.sweep_candidates import Candidate, Refusal, candidate, candidates
from controlplane.domain.sweep_dimensions import Dimension
from controlplane.domain.sweep_places import VERSION, numbers, ordered, places
from controlplane.domain.sweep_search import Figure, figure_name
from controlplane.domain.sweep_space import ConfigEditor, Space, Subject, active, apply
from controlplane.domain.sweeps import Trial
from controlplane.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as Question

_DRAWN = 10
"""Candidates that are drawn before the estimator is asked; refused ones tell too little to be among them."""
_ASKS = 20
"""Questions for each candidate that is wanted: the more is known of a small space, the more often the answer is known too."""
_WORST = 100.0
"""Of what cannot be measured at all: further from its bound, in logs, than anything that can."""
_CONSTRAINTS = "constraints"


@dataclass(frozen=True, slots=True)
class Asked:
    """Fewer candidates than were wanted: the space has no more. `refusals` came up on the way; as rows they teach the next question."""

    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a study is told: more of each of `worth` is better; a constraint above 0 is missed, by so much."""

    worth: tuple[float, ...]
    constraints: tuple[float, ...]


def next_candidates(
    space: Space,
    subject: Subject,
    editor: ConfigEditor,
    trials: Sequence[Trial],
    blocks: Turns,
    *,
    figures: Sequence[Figure],
    hard: Sequence[Objective],
    seed: int,
    count: int,
    rows: int = 1,
) -> Asked:
    """`count` candidates that are no trials yet, the base configs before all others. `blocks` are of all rounds so far; a trial
    without any, that neither was refused nor failed, is being measured. Raises RuntimeUnavailable where optuna is not installed."""
    _installed()
    known = {one.candidate for one in trials}
    found: dict[str, Candidate | Refusal] = {}

    def is_new(one: Candidate | Refusal) -> bool:
        if one.digest in known or one.digest in found:
            return False
        found[one.digest] = one
        return isinstance(one, Candidate)

    wanted = count
    for version in space.versions:
        if wanted:
            wanted -= is_new(candidate(version, {}, space, subject, editor, rows=rows))
    told = seen(trials, blocks, figures, hard)
    study = _study(space, subject, editor, trials, told, figures=len(figures), seed=seed)
    for _ in range(wanted * _ASKS):
        if wanted:
            # An answer that is known already stays open: the estimator takes open questions for bad answers, and looks elsewhere.
            wanted -= is_new(_answer(study.ask(), space, subject, editor, rows))
    if wanted:
        left = candidates(space, subject, editor, seed=seed, most=len(known) + len(found) + wanted, rows=rows)
        for one in left.tried:
            if wanted:
                wanted -= is_new(one)
    return Asked(
        tuple(one for one in found.values() if isinstance(one, Candidate)),
        tuple(one for one in found.values() if isinstance(one, Refusal)),
    )


def seen(
    trials: Sequence[Trial], blocks: Turns, figures: Sequence[Figure], hard: Sequence[Objective]
) -> Mapping[str, Seen]:
    """By candidate, what can be told of those that were measured, and of those that cannot be. A figure, or a hard objective, that
    no block shows says nothing of any; one that only some show is the worst for the others."""
    measured = [one.candidate for one in trials if any(one.candidate in turn for turn in blocks.values())]
    beside = max(
        measured, key=lambda name: sum(name in turn for turn in blocks.values()), default=None
    )  # the reference
    columns = [
        {name: value if figure.more_is_better else -value for name, value in _logs(measured, blocks, figure, beside)}
        for figure in figures
    ]
    missed = []
    for one in hard:
        bound, most = float(one.bound), one.direction == "at_most"
        if bound > 0:
            own = dict(_logs(measured, blocks, Figure(figure_name(one), not most), None))
            missed.append({name: (value - math.log(bound)) * (1 if most else -1) for name, value in own.items()})
    worst = tuple(min(column.values(), default=0.0) for column in columns)
    found = {
        name: Seen(
            tuple(column.get(name, least) for column, least in zip(columns, worst, strict=True)),
            tuple(column.get(name, max(0.0, *column.values()) + 1.0) for column in missed if column) or (0.0,),
        )
        for name in measured
    }
    lost = Seen(worst, (_WORST,))
    return found | {one.candidate: lost for one in trials if one.refused or one.failure}


def _logs(measured: Sequence[str], blocks: Turns, figure: Figure, beside: str | None) -> list[tuple[str, float]]:
    """The mean log of the figure, each block weighed by its length: of the ratio to `beside` in the same turns where all that have
    the figure have such turns, else of the figure itself."""
    plain, ratios = dict[str, tuple[float, float]](), dict[str, tuple[float, float]]()

    def add(sums: dict[str, tuple[float, float]], name: str, value: float, seconds: float) -> None:
        whole, weight = sums.get(name, (0.0, 0.0))
        sums[name] = whole + seconds * value, weight + seconds

    for turn in blocks.values():
        own = {name: block.figures.get(figure.name, 0.0) for name, block in turn.items()}
        logs = {name: math.log(value) for name, value in own.items() if 0 < value < math.inf}
        for name, value in logs.items():
            add(plain, name, value, turn[name].seconds)
            if beside in logs:
                add(ratios, name, value - logs[beside], turn[name].seconds)
    sums = ratios if ratios.keys() == plain.keys() else plain
    return [(name, sums[name][0] / sums[name][1]) for name in measured if name in sums]


def _study(
    space: Space,
    subject: Subject,
    editor: ConfigEditor,
    trials: Sequence[Trial],
    known: Mapping[str, Seen],
    *,
    figures: int,
    seed: int,
) -> Study:
    import optuna

    sampler = optuna.samplers.TPESampler(
        n_startup_trials=_DRAWN + sum(1 for one in trials if one.refused),
        constant_liar=True,
        constraints_func=_constraints,
        # of a digest: another draw after each batch, and the same one whenever these rows are asked again
        seed=int(digest_bytes(f"{seed}:{len(trials)}".encode()).removeprefix("sha256:")[:8], 16),
    )
    study = optuna.create_study(directions=["maximize"] * figures, sampler=sampler)
    for one in trials:
        own = known.get(one.candidate)
        chosen = _chosen(one, space, subject, editor)
        study.add_trial(
            optuna.create_trial(
                state=optuna.trial.TrialState.RUNNING if own is None else optuna.trial.TrialState.COMPLETE,
                values=None if own is None else own.worth,
                params={name: place for name, (place, _) in chosen.items()},
                distributions={name: among for name, (_, among) in chosen.items()},
                system_attrs=None if own is None else {_CONSTRAINTS: list(own.constraints)},
            )
        )
    return study


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    """Those that its rows say, or none for one that was just told."""
    found: Sequence[float] = trial.system_attrs.get(_CONSTRAINTS, ())
    return found


def _chosen(
    one: Trial, space: Space, subject: Subject, editor: ConfigEditor
) -> dict[str, tuple[int, BaseDistribution]]:
    """The place of each of its values among those of the dimension."""
    among = {one.name: one for one in (Dimension(VERSION, space.versions), *space.dimensions)}
    return {name: (at, _among(among[name])) for name, at in places(one, space, subject, editor).items()}


def _answer(question: Question, space: Space, subject: Subject, editor: ConfigEditor, rows: int) -> Candidate | Refusal:
    """Value by value, so that only dimensions whose conditions hold are asked for."""
    version = space.versions[_asked(question, Dimension(VERSION, space.versions))]
    config, wanted = subject.bases[version], dict[str, Json]()
    for dimension in space.dimensions:
        if active(dimension, config):
            wanted[dimension.name] = ordered(dimension)[_asked(question, dimension)]
            edited, _ = apply(config, dimension.name, wanted[dimension.name], editor)
            if edited is None:
                break
            config = edited
    return candidate(version, wanted, space, subject, editor, rows=rows)


def _asked(question: Question, dimension: Dimension) -> int:
    if numbers(dimension) is None:
        return int(question.suggest_categorical(dimension.name, range(len(dimension.values))))
    return question.suggest_int(dimension.name, 0, len(dimension.values) - 1)


def _among(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    most = len(dimension.values)
    return CategoricalDistribution(range(most)) if numbers(dimension) is None else IntDistribution(0, most - 1)


def _installed() -> None:
    """Its warnings of what may change some day are for its developers."""
    import warnings

    try:
        import optuna
    except ModuleNotFoundError:
        raise RuntimeUnavailable(
            "the search method optuna needs the package of that name, which is not installed here",
            hint="pip install 'triton-controlplane[optuna]', or use search.method racing",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
