# What of a stranger's capsule is never ordered of a bench.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.capsule_checks import check_replayable
from controlplane.domain.capsules import Capsule
from controlplane.domain.sweep_rounds import Measurement, Requests, Step
from controlplane.domain.sweep_spec import Shape
from controlplane.errors import CapsuleInvalid
from tests.unit.domain.test_capsules import a_capsule

Change = Callable[[Capsule], Capsule]
DIGEST = "sha256:" + "1" * 64


def block(change: Callable[[Measurement], Measurement]) -> Change:
    return lambda capsule: replace(capsule, measurements=(change(capsule.measurements[0]), *capsule.measurements[1:]))


def step(shape: Shape, text: str, process: str = "poisson") -> Change:
    return block(lambda one: replace(one, order=replace(one.order, step=Step(shape, text, process))))


def lasting(seconds: float) -> Change:
    return block(lambda one: replace(one, order=replace(one.order, seconds=seconds)))


def objective(**values: object) -> Change:
    def change(capsule: Capsule) -> Capsule:
        (one,) = capsule.sweep.objectives
        return replace(capsule, sweep=replace(capsule.sweep, objectives=({**one, **values},)))  # type: ignore[dict-item]

    return change


def sweep(**values: JsonObject) -> Change:
    return lambda capsule: replace(capsule, sweep=replace(capsule.sweep, **values))  # type: ignore[arg-type]


def test_what_was_exported_may_be_replayed() -> None:
    check_replayable(a_capsule())
    check_replayable(step(Shape.FIND_RATE, "")(a_capsule()))
    check_replayable(step(Shape.RATE, "400", "even")(a_capsule()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (step(Shape.TRACE, "/etc/shadow"), "a trace of arrivals, which is a file"),
        (step(Shape.CONCURRENCY, "$(reboot)"), "cannot be replayed"),
        (step(Shape.RATE, "400", "sudden"), "load.process"),
        (lasting(float("inf")), "lasts inf s"),
        (lasting(float("nan")), "lasts nan s"),
        (lasting(0), "lasts 0 s"),
        (block(lambda one: replace(one, round=2**40)), "impossible number"),
        (block(lambda one: replace(one, order=replace(one.order, seed=-1))), "impossible number"),
        (block(lambda one: replace(one, order=replace(one.order, place=1))), "has the block (1, 1) twice"),
        (lambda c: replace(c, trials=(c.trials[0], replace(c.trials[1], number=1))), "has the trial 1 twice"),
        (lambda c: replace(c, trials=(c.trials[0], replace(c.trials[1], candidate="../../up"))), "is not a digest"),
        (lambda c: replace(c, trials=(c.trials[0], replace(c.trials[1], config_digest="x" * 5000))), "is not a digest"),
        (lambda c: replace(c, sweep=replace(c.sweep, spec_digest="x" * 5000)), "is not a digest"),
        (lambda c: replace(c, trials=(c.trials[0], replace(c.trials[1], candidate=c.trials[0].candidate[:60] + "0" * 11))),
         "twice"),
        (lambda c: replace(c, trials=(replace(c.trials[0], number=2**33), c.trials[1])), "impossible number"),
        (lambda c: replace(c, sweep=replace(c.sweep, model="../up")), "cannot be replayed"),
        (lambda c: replace(c, beside=Manifest((FileEntry("1/model.onnx", 1, DIGEST),))), "'1/model.onnx' cannot lie beside"),
        (lambda c: replace(c, beside=Manifest((FileEntry("config.pbtxt", 1, DIGEST),))), "'config.pbtxt' cannot lie beside"),
        (lambda c: replace(c, versions={0: c.versions[3]}), "version 0 is not allowed"),
        (lambda c: replace(c, versions={3: replace(c.versions[3], requests=Requests("x", 0))}), "load.rows"),
        (lambda c: replace(c, dropped=("x" * 3000,)), "has 3000 characters"),
        (lambda c: replace(c, measurements=tuple(
            replace(one, order=replace(one.order, place=at, seconds=3000.0))
            for at, one in enumerate(c.measurements * 50))), "longer than any sweep may"),
        (block(lambda one: replace(one, figures={"throughput": 1e-320})), "shows 'throughput' 1e-320"),
        (block(lambda one: replace(one, figures={"throughput": float("nan")})), "shows 'throughput' nan"),
        (block(lambda one: replace(one, seconds=float("inf"))), "shows inf s"),
        (objective(metric="; rm"), "is not a name such as"),
        (objective(bound=10), "objectives cannot be read"),
        (objective(more=1), "objectives cannot be read"),
        (sweep(load={}), "spec, load or plan cannot be read"),
        (sweep(plan={}), "spec, load or plan cannot be read"),
        (sweep(answer={"figures": {"1.1": {"throughput": ["a"]}}}), "answer cannot be read"),
    ],
)  # fmt: skip
def test_what_nobody_may_ask_of_a_bench_a_capsule_may_not_either(change: Change, said: str) -> None:
    with pytest.raises(CapsuleInvalid) as error:
        check_replayable(change(a_capsule()))

    assert said in error.value.message
