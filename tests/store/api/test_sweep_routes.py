# Sweeps by HTTP, on both databases: pages, measurements, repeated requests, and the stream of progress.
from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from clients.control.errors import ApiError
from clients.control.types import NewSweep, SweepSummary
from controlplane.domain.access import Role
from tests.store.api.conftest import Api, Cli
from tests.store.api.test_sweeps import SPEC, bench, runner, spec

__all__ = ["spec"]
pytestmark = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
NEW = {"model": "double", "spec": SPEC}


def test_a_sweep_is_started_once_however_often_the_request_comes(api: Api, spec: str) -> None:
    assert spec
    with api.http("author") as http:
        first = http.post("/v1/sweeps", json=NEW, headers={"Idempotency-Key": "k"})
        again = http.post("/v1/sweeps", json=NEW, headers={"Idempotency-Key": "k"})
        other = http.post("/v1/sweeps", json=NEW | {"seed": 2}, headers={"Idempotency-Key": "k"})
        assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
        assert (other.status_code, other.json()["code"]) == (422, "idempotency.mismatch")
        assert [one["id"] for one in http.get("/v1/sweeps").json()["items"]] == [1]
    assert [(entry.action, entry.actor) for entry in api.as_("viewer").audit.entries(limit=1).items] == [
        ("sweep.started", "author")
    ]


def test_lists_are_continued_by_their_cursors(api: Api, spec: str) -> None:
    assert spec
    author = api.as_("author")
    for seed in range(3):
        author.sweeps.start(NewSweep("double", SPEC, seed=seed))
    author.sweeps.cancel(2)
    page = author.sweeps.list(limit=2)
    assert [one.id for one in page.items] == [3, 2]
    assert [one.id for one in author.sweeps.list(limit=2, cursor=page.next).items] == [1]
    assert [one.id for one in author.sweeps.list(state="cancelled").items] == [2]
    assert author.sweeps.list(model="other").items == ()
    whole = author.sweeps.all_trials(1)
    seen, cursor = [], None
    while True:
        trials = author.sweeps.trials(1, cursor=cursor, limit=2)
        seen += list(trials.items)
        cursor = trials.next
        if cursor is None:
            break
    assert tuple(seen) == whole
    assert [one.number for one in whole] == list(range(1, len(whole) + 1))


def test_measurements_come_in_their_order_and_with_histograms_when_asked_for(api: Api, spec: str) -> None:
    assert spec
    viewer = api.as_("viewer")
    sweep = api.as_("author").sweeps.start(NewSweep("double", SPEC))
    on = bench()
    assert runner(api, on).once()
    listed = [
        viewer.sweeps.measurements(sweep.id, limit=500).items,
        viewer.sweeps.measurements(sweep.id, limit=3).items,
    ]
    places = [(one.round, one.place) for one in listed[0]]
    assert (len(places), places) == (on.measured, sorted(places))
    assert listed[1] == listed[0][:3]
    trials = {one.number: one for one in viewer.sweeps.all_trials(sweep.id)}
    assert {number: sum(one.trial == number for one in listed[0]) for number in trials} == {
        number: trial.blocks for number, trial in trials.items()
    }
    own = viewer.sweeps.measurements(sweep.id, trial=1, limit=500).items
    assert own == tuple(one for one in listed[0] if one.trial == 1)
    assert viewer.sweeps.trial(sweep.id, 1) == trials[1]
    first = viewer.sweeps.measurements(sweep.id, limit=1, histograms=True).items[0]
    assert (own[0].histogram, own[0].histogram_sent) == (None, None)
    assert (first.histogram, first.histogram_sent) == ("", "")
    assert first.step == {"shape": "find_rate", "text": "", "process": "poisson"}
    assert first.batches == {"4": first.completed // 4}


def test_a_plan_is_what_starting_it_does(api: Api, spec: str) -> None:
    assert spec
    author = api.as_("author")
    plan, sweep = author.sweeps.plan(NewSweep("double", SPEC)), author.sweeps.start(NewSweep("double", SPEC))
    for name in ("model", "spec", "spec_digest", "space", "load", "plan", "objectives", "base_revision", "bench"):
        assert getattr(plan, name) == getattr(sweep, name), name
    assert [(one.candidate, one.refused) for one in plan.trials] == [
        (one.candidate, one.refused) for one in author.sweeps.all_trials(sweep.id)
    ]


def test_odd_numbers_are_refused_and_unknown_ones_not_found(api: Api, spec: str) -> None:
    assert spec
    api.as_("author").sweeps.start(NewSweep("double", SPEC))
    with api.http("viewer") as http:
        for path, status in (
            ("/v1/sweeps/2", 404),
            ("/v1/sweeps/x", 422),
            ("/v1/sweeps/1/trials/99", 404),
            ("/v1/sweeps/2/trials", 404),
            ("/v1/sweeps/2/measurements", 404),
            ("/v1/sweeps/1/measurements?trial=99", 404),
            ("/v1/sweeps/1/measurements?cursor=!", 422),
            ("/v1/sweeps/1/trials?cursor=!", 422),
            ("/v1/sweeps/1/comparison?one=1", 422),
            ("/v1/sweeps/1/comparison?one=1&other=99", 404),
            (f"/v1/sweeps/1/comparison?one=1&other={'9' * 40}", 422),
            ("/v1/sweeps/2/events", 404),
        ):
            answer = http.get(path)
            assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), path


def test_the_stream_tells_each_step_and_ends_with_the_sweep(api: Api, cli: Cli, spec: str) -> None:
    assert spec
    cli("sweep", "run", "double", "--spec", spec, "--no-wait")
    on = bench()
    on.between = lambda _: time.sleep(0.05)
    told: list[dict[str, object]] = []
    begun = threading.Event()

    def read() -> None:
        with api.http("viewer") as http, http.stream("GET", "/v1/sweeps/1/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
                    begun.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(60)
    assert runner(api, on).once()
    thread.join(60)
    assert not thread.is_alive()
    assert [told[0]["state"], told[-1]["state"]] == ["queued", "finished"]
    assert told[-1]["chosen"] == api.as_("viewer").sweeps.get(1).answer["chosen"]  # type: ignore[index]  # it is finished
    done = [one["progress"]["done"] for one in told]  # type: ignore[index]  # a tree
    assert len(set(done)) > 2
    assert done == sorted(done)


def test_a_stream_ends_soon_after_its_reader_may_no_longer_read(api: Api, cli: Cli, spec: str) -> None:
    cli("sweep", "run", "double", "--spec", spec, "--no-wait")  # nobody works on it: it waits for ever
    begun, ended = threading.Event(), threading.Event()

    def each() -> Iterator[SweepSummary]:
        for seen in api.as_("viewer").sweeps.watch(1, deadline_seconds=60):
            begun.set()
            yield seen

    def follow() -> None:
        with pytest.raises(ApiError, match=r"viewer may not sweep\.read"):
            list(each())
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert begun.wait(60)
    api.services.access.revoke(api.admin, "viewer", Role.VIEWER)
    thread.join(45)
    assert ended.is_set()
