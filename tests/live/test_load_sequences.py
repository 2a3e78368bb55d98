# Sequences against a stateful model of a real server, whose answers show that the order was kept.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.inference import InferenceClient
from clients.load.expectations import first_pass
from clients.load.measure import Limits, Load, Measurement, Target, measure
from clients.load.messages import message
from clients.load.schedule import Curve
from clients.load.sequences import Ids
from clients.load.server import settled, statistics
from clients.load.traffic import Part, Traffic
from clients.load.transports import Kind, Via
from tests.live.python_models import ACCUMULATOR, accumulator, serve
from tests.live.restarted import Restarted
from tests.live.scaling import Site, config, open_site
from tests.live.servers import MakeTriton

STEPS = 12
SHORT = Limits(seconds=1.5, cap=1.5, warm_up=0.2)


@pytest.fixture
def site(make_triton: MakeTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(make_triton(), tmp_path)
    yield opened
    opened.server.close()


def target(site: Site) -> Target:
    host, port = site.live.grpc.split(":")
    return Target(host, int(port))


def stateful(lengths: tuple[int, int], *, scripts: int = 1, ids: Ids = "int64") -> Part:
    """What the accumulator must answer at each step, when none is lost, repeated, overtaken or another sequence's."""
    values = np.random.default_rng(5).integers(1, 100, (scripts, lengths[1]))
    messages, expected = [], []
    for script in values:
        total = 0
        for value in script:
            total = total * 3 + int(value)
            messages.append(message("s", {"X": np.array([[value]])}, version=None, parameters={}))
            expected.append({"SUM": np.array([[total]])})
    return Part("s", tuple(messages), lengths=lengths, ids=ids, expected=tuple(expected))


def alive(site: Site) -> int:
    with InferenceClient(site.live.grpc) as client:
        answer = client.infer("s", {"X": np.ones((1, 1), np.int64)}, sequence=(1, True, True), deadline_seconds=10)
    return int(answer.outputs["ALIVE"][0, 0])


def succeeded(site: Site, least: int) -> int:
    with InferenceClient(site.live.grpc) as client:
        return settled(lambda: statistics(client, "s", version=None).succeeded, lambda seen: seen >= least)


def kept_order(measured: Measurement) -> None:
    assert (measured.failures, measured.differing, measured.differences) == ({}, 0, ())


@pytest.mark.parametrize(
    ("datatype", "ids"),
    [
        ("TYPE_UINT64", "int64"),
        ("TYPE_INT64", "int64"),
        ("TYPE_UINT32", "int32"),
        ("TYPE_INT32", "int32"),
        (None, "string"),
    ],
)
def test_triton_takes_the_patched_ids_and_the_order_of_each_sequence_is_kept(
    site: Site, datatype: str | None, ids: Ids
) -> None:
    serve(site, "s", accumulator(datatype), ACCUMULATOR)
    traffic = Traffic((stateful((STEPS, STEPS), scripts=3, ids=ids),))
    measured = measure(target(site), traffic, Load(concurrency=5), SHORT, connections=2)
    kept_order(measured)
    assert measured.checked >= len(measured.records) - 5 > 60
    assert alive(site) == 0, "all sequences were ended"
    assert succeeded(site, len(measured.records) + 1) == len(measured.records) + 1


@pytest.mark.parametrize("kind", ["grpcio", "stream"])
def test_sequences_and_checks_go_by_grpcio_too(site: Site, kind: Kind) -> None:
    serve(site, "s", accumulator(), ACCUMULATOR)
    by = replace(target(site), via=Via(kind))
    measured = measure(by, Traffic((stateful((3, STEPS)),)), Load(concurrency=4), SHORT, connections=2)
    kept_order(measured)
    assert measured.checked > 5
    assert alive(site) == 0
    assert succeeded(site, len(measured.records) + 1) == len(measured.records) + 1


def test_two_processes_share_the_live_sequences_and_mix_none_up(site: Site) -> None:
    serve(site, "s", accumulator(), ACCUMULATOR)
    measured = measure(target(site), Traffic((stateful((2, STEPS)),)), Load(concurrency=6), SHORT, processes=2)
    kept_order(measured)
    assert alive(site) == 0
    assert succeeded(site, len(measured.records) + 1) == len(measured.records) + 1
    steps = np.bincount(measured.records[:, 4], minlength=STEPS)
    assert steps[0] == pytest.approx(steps[1], abs=6)
    assert (np.diff(steps[1:]) <= 0).all(), "no step without the one before"
    assert steps[1] > steps[STEPS // 2] > steps[-1], "lengths from 2 to 12 are drawn: further steps are rarer"


def test_a_rate_over_live_sequences_keeps_the_due_times_and_advances_none_without_an_answer(site: Site) -> None:
    """The model is slowed to a rate below the one asked for: what is due waits for a sequence, and its latency says so."""
    slow = ACCUMULATOR.replace(
        "        answers = []\n", "        import time; time.sleep(0.02)\n        answers = []\n", 1
    )
    serve(site, "s", accumulator(), slow)
    traffic = Traffic((stateful((STEPS, STEPS)),), live=2)
    load = Load(curve=Curve.flat(200), process="even")
    measured = measure(target(site), traffic, load, Limits(seconds=2, cap=2, warm_up=0.2))
    kept_order(measured)
    due, sent = np.sort(measured.records[:, 0]), measured.records[:, 1]
    gaps = np.diff(due[due < sent.max()])
    assert np.median(gaps) == pytest.approx(5e6, rel=0.01), "due times are those of the schedule"
    calls = measured.records[np.argsort(sent)]
    in_flight = [(calls[:, 1] <= moment) & (calls[:, 2] > moment) for moment in calls[:, 1] + 1]
    assert max(int(flying.sum()) for flying in in_flight) <= 2
    assert measured.latency.scheduled[50.0].value > 5 * measured.latency.sent[50.0].value
    assert measured.offered - measured.sent > 50
    assert measured.late >= measured.held > measured.sent / 2, "held up by the sequences, not by the client"
    assert "because 2 were in flight" in measured.reasons[-1]


def test_a_failed_request_ends_its_sequence_and_a_new_one_takes_its_place(site: Site) -> None:
    failing = ACCUMULATOR.replace(
        "            if start.ravel()[0]:\n",
        "            if value.ravel()[0] == 7:\n"
        '                answers.append(pb_utils.InferenceResponse([], pb_utils.TritonError("no sevens")))\n'
        "            elif start.ravel()[0]:\n",
    ).replace(
        "            self.sums[key] = total\n",
        "            if value.ravel()[0] == 7: continue\n            self.sums[key] = total\n",
    )
    assert failing != ACCUMULATOR
    serve(site, "s", accumulator(slots=10_000), failing)  # as the slots of the failed are held until they time out
    bodies = [message("s", {"X": np.array([[n]])}, version=None, parameters={}) for n in (1, 2, 7, 4)]
    expected = ({"SUM": np.array([[1]])}, {"SUM": np.array([[5]])}, None, None)
    traffic = Traffic((Part("s", tuple(bodies), lengths=(4, 4), expected=expected),))
    measured = measure(target(site), traffic, Load(concurrency=2), replace(SHORT, errors=1))
    assert measured.differing == 0
    steps = np.bincount(measured.records[:, 4], minlength=4)
    assert steps[3] <= 2, "nothing follows the step that fails, but the last requests of what was under way"
    assert steps[0] > 5
    assert steps[2] == pytest.approx(steps[0], abs=2)
    assert measured.failures == {"INTERNAL": "no sevens"}


def test_a_first_pass_goes_through_whole_scripts_and_what_stateless_models_answer(site: Site) -> None:
    serve(site, "s", accumulator(), ACCUMULATOR)
    site.write("m", {1: 3}, config())
    site.load("m")
    plain = [message("m", {"X": np.full((1, 2), n, np.float32)}, version=None, parameters={}) for n in range(4)]
    part = stateful((1, STEPS), scripts=2)
    traffic = Traffic((replace(part, expected=(), weight=2), Part("m", tuple(plain))))
    with InferenceClient(site.live.grpc) as client:
        taught = first_pass(client, traffic, deadline_seconds=10)
    sums = [answer["SUM"].item() for answer in taught.parts[0].expected if answer is not None]
    assert sums == [answer["SUM"].item() for answer in part.expected if answer is not None]
    sums_only = replace(taught.parts[0], expected=part.expected)  # ALIVE depends on the others
    measured = measure(target(site), replace(taught, parts=(sums_only, taught.parts[1])), Load(concurrency=4), SHORT)
    kept_order(measured)
    counts = {name: part.sent for name, part in measured.parts.items()}
    assert counts["s"] == pytest.approx(2 * counts["m"], rel=0.1, abs=2 * STEPS)
    assert measured.parts["m"].latency.sent[50.0].value > 0


def test_a_server_killed_in_the_middle_forgets_its_sequences_and_new_ones_begin(site: Site) -> None:
    serve(site, "s", accumulator(), ACCUMULATOR)
    limits = Limits(seconds=90, cap=90, warm_up=0.2, errors=1, timeout=5)
    traffic, restarted = Traffic((stateful((STEPS, STEPS)),)), Restarted(site.live.process)
    measured = measure(target(site), traffic, Load(concurrency=3), limits, progress=restarted)
    site.live.process.wait_ready(60)
    assert (measured.differing, measured.verdict == "errors") == (0, False)
    failed = measured.records[measured.records[:, 3] != 0]
    good = measured.records[measured.records[:, 3] == 0]
    assert len(failed) >= 1
    assert measured.checked >= len(good) - 3
    assert good[-1, 2] > failed[0, 2], "answers came again"
    assert (failed[failed[:, 2] > failed[0, 2] + 1_000_000_000][:, 4] == 0).all(), "what is tried meanwhile are starts"
