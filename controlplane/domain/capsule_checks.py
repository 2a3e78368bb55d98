# Whether a capsule may be read and replayed: what a stranger could ask of a bench, and of a database, is held to what everybody's spec is. Pure.
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from controlplane.domain.artifacts import check_beside, check_digest
from controlplane.domain.capsules import Capsule
from controlplane.domain.catalog import Objective
from controlplane.domain.names import check_name, check_version
from controlplane.domain.objectives import check_objective, check_text
from controlplane.domain.sweep_answer import figures_of_answer
from controlplane.domain.sweep_course import terms_of
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweep_spec import Load, Shape
from controlplane.errors import CapsuleInvalid, ControlPlaneError

_MOST = 2**31
_LONGEST_BLOCK_SECONDS = 3600.0
_LONGEST_SECONDS = 7 * 86400.0
_LEAST = 1e-15
"""Of figures; beyond that, and beyond its inverse, what is made of them overflows."""


_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
"""What comes of reading a tree that has another form than we write."""


def check_readable(capsule: Capsule) -> None:
    """Whether what its blocks were to show, what they show and its answer can be read. Raises CapsuleInvalid for the first that cannot."""
    try:
        what = "objectives"
        for one in capsule.sweep.objectives:
            check_objective(Objective(**one))  # type: ignore[arg-type]  # what is no text is refused there
        what = "spec, load or plan"
        terms_of(capsule.sweep, {}, 0)
        int(str(capsule.sweep.plan["seconds"]))
        what = "answer"
        figures_of_answer(capsule.sweep)
    except ControlPlaneError as error:
        raise CapsuleInvalid(f"the capsule's {what} cannot be read: {error.message}", hint=error.hint) from None
    except _UNREADABLE as error:
        raise CapsuleInvalid(f"the capsule's {what} cannot be read: {error!r}"[:300]) from None
    for block in capsule.measurements:
        _shown(block)


def check_replayable(capsule: Capsule) -> None:
    """Raises CapsuleInvalid for the first thing that is wrong."""
    check_readable(capsule)
    try:
        check_name(capsule.sweep.model, "model")
        for number, version in capsule.versions.items():
            check_version(number)
            Load(Shape.CONCURRENCY, "1", rows=version.requests.rows)
        check_beside(capsule.beside)  # a directory 1 beside a config would stand for the version that is measured
        check_digest(capsule.sweep.spec_digest)
        for trial in capsule.trials:  # models are called by the candidate, and rows are found by it
            for name in (trial.candidate, trial.artifact, *([trial.config_digest] if trial.config is not None else [])):
                check_digest(name)
        for line in capsule.dropped:
            check_text(line, "line of what was dropped", 2000)
        for step in {one.order.step for one in capsule.measurements}:
            if step.shape is not Shape.FIND_RATE or step.text:
                Load(step.shape, step.text, step.process)
    except ControlPlaneError as error:
        raise CapsuleInvalid(f"the capsule cannot be replayed: {error.message}", hint=error.hint) from None
    except _UNREADABLE as error:
        raise CapsuleInvalid(f"the capsule cannot be replayed: {str(error)[:200]}") from None
    if any(one.order.step.shape is Shape.TRACE for one in capsule.measurements):
        raise CapsuleInvalid(
            "the capsule has a trace of arrivals, which is a file of the machine where it ran",
            hint="run a sweep with that trace: tritonctl sweep run MODEL --spec FILE",
        )
    _once("trial", (trial.number for trial in capsule.trials))
    _once("candidate", (trial.candidate[: len("sha256:") + 16] for trial in capsule.trials))  # as scratch names have it
    _once("block", ((one.round, one.order.place) for one in capsule.measurements))
    _blocks(capsule.measurements)
    if any(not 0 < trial.number < _MOST for trial in capsule.trials):
        raise CapsuleInvalid("a trial of the capsule has an impossible number")


def _blocks(measurements: Iterable[Measurement]) -> None:
    whole = 0.0
    for one in measurements:
        order = one.order
        if not 0 < order.seconds <= _LONGEST_BLOCK_SECONDS or math.isnan(order.seconds):
            raise CapsuleInvalid(
                f"a block of the capsule lasts {order.seconds} s: at most {_LONGEST_BLOCK_SECONDS:g} are"
            )
        if not (
            0 < one.round < _MOST and 0 <= order.place < _MOST and 0 <= order.turn < _MOST and 0 <= order.seed < _MOST
        ):
            raise CapsuleInvalid(f"a block of round {one.round} of the capsule has an impossible number")
        whole += order.seconds
    if whole > _LONGEST_SECONDS:
        raise CapsuleInvalid(f"the blocks of the capsule last {whole:.0f} s, longer than any sweep may")


def _shown(one: Measurement) -> None:
    odd = next((name for name, value in one.figures.items() if value and not _LEAST <= value <= 1 / _LEAST), None)
    if odd is not None or not 0 <= one.seconds <= _LONGEST_SECONDS:
        what = f"{one.seconds} s" if odd is None else f"{odd[:80]!r} {one.figures[odd]}"
        raise CapsuleInvalid(f"a block of round {one.round} of the capsule shows {what}: nothing measured is so")


def _once(what: str, keys: Iterable[object]) -> None:
    twice = next((key for key, count in Counter(keys).items() if count > 1), None)
    if twice is not None:
        raise CapsuleInvalid(f"the capsule has the {what} {str(twice)[:80]} twice")
