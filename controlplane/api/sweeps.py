# Sweeps: plan, start, follow, look at what was measured, compare.
from __future__ import annotations

import math

from fastapi import Request
from starlette.responses import StreamingResponse

from clients.control import types
from clients.load.statistics import Interval
from controlplane.api import events, pages, wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.sweep_compare import Compared
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweep_spec import SweepSpec
from controlplane.domain.sweep_text import spec_from_text
from controlplane.domain.sweeps import ACTIVE, Sweep, SweepState
from controlplane.services.sweeps import Comparison, TrialSeen


def plan_sweep(body: types.NewSweep, caller: Caller, rooms: Rooms) -> types.PlanView:
    """What starting it would do: candidates, refused choices with their reasons, load, stages, time. Nothing is kept."""
    draft = rooms.sweeps.plan_only(caller, _spec(body), environment=body.environment, bench=body.bench)
    trials = tuple(_trial(TrialSeen(trial, {}, 0)) for trial in draft.trials)
    return wire.of(types.PlanView, draft.sweep, trials=trials)


def start_sweep(body: types.NewSweep, caller: Caller, rooms: Rooms) -> types.SweepView:
    """Queued: a worker measures it. Follow it by its events."""
    return _sweep(rooms.sweeps.start(caller, _spec(body), environment=body.environment, bench=body.bench))


def list_sweeps(
    *,
    caller: Caller,
    rooms: Rooms,
    model: str | None = None,
    state: SweepState | None = None,
    cursor: str | None = None,
    limit: pages.Limit = 50,
) -> types.Page[types.SweepSummary]:
    """The newest first."""
    found = rooms.sweeps.list(caller, model=model, state=state, before=pages.after(cursor), limit=limit + 1)
    following = pages.cursor(found[limit - 1].id) if len(found) > limit else None
    return types.Page(tuple(_summary(item) for item in found[:limit]), following)


def show_sweep(sweep: int, caller: Caller, rooms: Rooms) -> types.SweepView:
    return _sweep(rooms.sweeps.get(caller, sweep))


def cancel_sweep(sweep: int, caller: Caller, rooms: Rooms) -> types.SweepView:
    """What was measured stays."""
    return _sweep(rooms.sweeps.cancel(caller, sweep))


def resume_sweep(sweep: int, caller: Caller, rooms: Rooms) -> types.SweepView:
    """Queues one that failed or was cancelled; what was measured counts."""
    return _sweep(rooms.sweeps.resume(caller, sweep))


def watch_sweep(sweep: int, caller: Caller, rooms: Rooms, request: Request) -> StreamingResponse:
    """Server-sent events: `sweep` with its summary, whenever it got further. The stream ends with the sweep, and soon after the
    caller's token or right to look ended."""
    return events.stream(
        "sweep",
        caller,
        rooms,
        request,
        look=lambda principal: rooms.sweeps.get(principal, sweep),
        told=_summary,
        moves=lambda found: found.state in ACTIVE,
    )


def list_trials(
    *, sweep: int, caller: Caller, rooms: Rooms, cursor: str | None = None, limit: pages.Limit = 50
) -> types.Page[types.TrialView]:
    """By number: the candidates, then the refused choices."""
    after = pages.after(cursor) or 0
    found = [seen for seen in rooms.sweeps.trials(caller, sweep) if seen.trial.number > after]
    following = pages.cursor(found[limit - 1].trial.number) if len(found) > limit else None
    return types.Page(tuple(_trial(seen) for seen in found[:limit]), following)


def show_trial(sweep: int, trial: int, caller: Caller, rooms: Rooms) -> types.TrialView:
    return _trial(rooms.sweeps.trial(caller, sweep, trial))


def list_measurements(
    *,
    sweep: int,
    caller: Caller,
    rooms: Rooms,
    trial: int | None = None,
    histograms: bool = False,
    cursor: str | None = None,
    limit: pages.Limit = 50,
) -> types.Page[types.MeasurementView]:
    """Of one trial or of all, in the order in which they were measured; with their histograms only when asked for."""
    numbers, skipped = rooms.sweeps.numbers(caller, sweep), pages.after(cursor) or 0
    found = rooms.sweeps.measurements(caller, sweep, trial=trial, skip=skipped, limit=limit + 1)
    following = pages.cursor(skipped + limit) if len(found) > limit else None
    return types.Page(
        tuple(_measurement(one, numbers[one.order.candidate], histograms=histograms) for one in found[:limit]),
        following,
    )


def show_fingerprints(sweep: int, caller: Caller, rooms: Rooms) -> types.FingerprintsView:
    found = rooms.sweeps.fingerprints(caller, sweep)
    return types.FingerprintsView({name: one.to_json() for name, one in sorted(found.items())})


def compare_trials(sweep: int, one: int, other: int, caller: Caller, rooms: Rooms) -> types.ComparisonView:
    """`other` as a multiple of `one`, by blocks of the same turns."""
    return _comparison(rooms.sweeps.compare(caller, sweep, one, other))


def _spec(body: types.NewSweep) -> SweepSpec:
    return spec_from_text(body.spec, model=body.model, seed=body.seed, seconds=body.seconds)


def _sweep(sweep: Sweep) -> types.SweepView:
    return wire.of(types.SweepView, sweep)


def _summary(sweep: Sweep) -> types.SweepSummary:
    chosen = (sweep.answer or {}).get("chosen")
    return wire.of(types.SweepSummary, sweep, chosen=None if chosen is None else str(chosen))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figure(name: str, interval: Interval) -> types.FigureView:
    known = math.isfinite(interval.high) or interval.low > 0
    low, high = (_finite(interval.low), _finite(interval.high)) if known else (None, None)
    return types.FigureView(name, interval.value, low, high)


def _trial(seen: TrialSeen) -> types.TrialView:
    figures = tuple(_figure(name, one) for name, one in seen.figures.items() if math.isfinite(one.value))
    return wire.of(types.TrialView, seen.trial, figures=figures, blocks=seen.blocks)


def _measurement(one: Measurement, trial: int, *, histograms: bool) -> types.MeasurementView:
    order = one.order
    return wire.of(
        types.MeasurementView,
        one,
        trial=trial,
        place=order.place,
        turn=order.turn,
        seed=order.seed,
        asked_seconds=order.seconds,
        step={"shape": order.step.shape.value, "text": order.step.text, "process": order.step.process},
        figures={name: _finite(value) for name, value in one.figures.items()},
        batches={str(rows): count for rows, count in one.batches.items()},
        histogram=one.histogram if histograms else None,
        histogram_sent=one.histogram_sent if histograms else None,
    )


def _comparison(found: Comparison) -> types.ComparisonView:
    return types.ComparisonView(
        found.one.sweep,
        found.one.number,
        found.other.number,
        found.margin,
        tuple(_compared(one) for one in found.figures),
    )


def _compared(one: Compared) -> types.ComparedFigure:
    seen = _figure(one.name, one.ratio)
    return types.ComparedFigure(one.name, _finite(seen.value), seen.low, seen.high, one.outcome, one.pairs)
