# Load acceptance 8, on a live server: the latency gate of a change, passed, failed and inconclusive.
from __future__ import annotations

import io
import threading
import time

import psutil
import pytest

from clients.load.statistics import fewest
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.changes import ChangeState
from controlplane.domain.latency_gates import LatencyOutcome
from controlplane.services.catalog import Registration
from controlplane.services.change_views import ChangeView
from tests.live.installation import ENV, Installation, effects, proofs
from tests.live.opaque import opaque_config, samples

STALLING = b"""import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.count = 0

    def execute(self, requests):
        answers = []
        for request in requests:
            self.count += 1
            if self.count % 300 == 0:
                time.sleep(0.3)
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", (x * 3.0).astype("float32"))]))
        return answers
"""
"""Once in 300 requests it stalls for 300 ms: at 100/s fewer than one in a hundred take 290 ms, but too few are seen to tell."""


@pytest.fixture
def dialect() -> str:
    """One is enough here: these wait most of the time, and tests/store/test_latency_gates.py writes the same rows on both."""
    return "postgresql"


def gated(at: Installation, gate: str) -> None:
    at.environments.set_policy(at["admin"], ENV, {"latency_gates": [gate]}, expected_number=None)


def served(at: Installation, model: str) -> None:
    """Revision 1 answers with factor 2; version 2, with factor 3, is registered."""
    at.register(model, 2.0)
    at.register(model, 3.0)
    assert at.deploy(model, versions=(1,), config=at.config(model)).request.state is ChangeState.APPLIED


def measured(view: ChangeView) -> tuple[LatencyOutcome, dict[str, object]]:
    (measurement,) = view.latency
    return measurement.outcome, dict(measurement.seen)


def test_load_acceptance_8_a_gate_that_passes_is_recorded_with_its_numbers(at: Installation, model: str) -> None:
    """At p90: a machine that stalls now and then for reasons of its own makes p99 hard to tell, which is no failure."""
    served(at, model)
    gated(at, f"fast={model[:-1]}*:p90<=5000ms@50/s,seconds=4,most_seconds=60")
    for _ in range(3):
        view = at.propose(model, versions=(2,), sets=(("instance_group[0].count", "2"),))
        assert [(gate.name, gate.outcome) for gate in view.plan.gates] == [("latency fast", "later")]
        assert "p90 <= 5000 ms at 50/s: measured for 4 s to 60 s" in view.plan.gates[0].message
        applied = at.finish(at.start(view))
        if measured(applied)[0] is not LatencyOutcome.INCONCLUSIVE:
            break
    assert applied.request.message == ""
    assert applied.request.state is ChangeState.APPLIED
    assert proofs(applied)["latency fast"] == "shown"
    outcome, seen = measured(applied)
    assert outcome is LatencyOutcome.PASSED
    assert applied.latency[0].gate == view.plan.clauses["latency_gates"][0]  # type: ignore[index]
    assert (applied.latency[0].server, applied.latency[0].version) == (ENV, 2)
    assert 0 < seen["low_us"] <= seen["value_us"] <= seen["high_us"] <= 5_000_000  # type: ignore[operator]
    assert fewest(90) <= seen["answered"] <= seen["offered"]  # type: ignore[operator]
    assert seen["failed"] == {}
    assert seen["calibration"]["ceiling"] > 50  # type: ignore[index]  # else it were inconclusive
    assert 0 < seen["calibration"]["floor_us"] < 1_000_000  # type: ignore[index]

    revision = at.environments.revision(at["author"], ENV, model, 2).revision
    (recorded,) = [proof for proof in revision.proofs if proof["name"] == "latency fast"]
    assert recorded["measured"] == seen
    assert f"n {seen['answered']}" in str(recorded["seen"])
    (entry,) = [e for e in at.audit(("change", str(view.request.id))) if e.action == "change.measured"]
    assert entry.details["seen"] == seen
    assert entry.details["outcome"] == "passed"
    assert effects(applied)[-1] == "measure"
    assert applied.journal[-1].finished_at is not None

    # What goes in place is loaded too, and is gated; going back is not.
    in_place = at.propose(model, sets=(("instance_group[0].count", "1"),))
    assert (in_place.plan.reload_class, [g.outcome for g in in_place.plan.gates]) == ("in_place", ["later"])
    back = at.rollback(model, to=1)
    assert (back.request.state, back.latency, back.plan.gates) == (ChangeState.APPLIED, (), ())
    assert "no latency gate holds it up (fast): going back is to be fast" in back.plan.notes


def test_load_acceptance_8_a_gate_that_fails_undoes_the_change(at: Installation, model: str) -> None:
    """A queue that waits 50 ms for a batch that never fills."""
    served(at, model)
    gated(at, f"fast={model}:p99<=1ms@50/s,seconds=10,most_seconds=60")
    wait = (
        ("dynamic_batching.preferred_batch_size", "[8]"),
        ("dynamic_batching.max_queue_delay_microseconds", "50000"),
    )
    view = at.deploy(model, versions=(2,), sets=wait)
    assert view.request.state is ChangeState.UNDONE
    assert view.request.message.startswith("latency fast: p99 is ")
    assert "the bound is 1 ms; next: tritonctl change propose" in view.request.message
    assert at.answer(model) == 2.0
    assert at.environments.deployment(at["author"], ENV, model).deployment.revision == 1
    outcome, seen = measured(view)
    assert outcome is LatencyOutcome.FAILED
    assert seen["sent_low_us"] > 1000  # type: ignore[operator]
    entries = {entry.action: entry for entry in at.audit(("change", str(view.request.id)))}
    assert entries["change.measured"].details["seen"] == seen
    assert entries["change.turned_back"].details["message"] == view.request.message
    assert "measure" not in effects(view, "back")
    assert proofs(view)["answers of version 1"] == "shown"


def test_load_acceptance_8_a_server_that_falls_behind_the_rate_is_not_loaded_further(
    at: Installation, model: str
) -> None:
    """At ten answers a second of 150 asked, the requests would only pile up for a minute."""
    served(at, model)
    gated(at, f"fast={model}:p99<=100ms@150/s,seconds=200,most_seconds=200")
    slow = STALLING.replace(b"% 300", b"% 1").replace(b"0.3)", b"0.1)")
    register(at, model, slow, number=3)
    began = time.monotonic()
    view = at.deploy(model, versions=(3,), config=opaque_config(at, model))
    assert time.monotonic() - began < 150
    assert view.request.state is ChangeState.UNDONE
    assert "latency fast: the server fell behind 150/s:" in view.request.message
    assert at.answer(model) == 2.0


def test_load_acceptance_8_the_first_failure_decides_and_ends_the_measurement(at: Installation, model: str) -> None:
    """What fails the gate's requests fails those of others too, for as long as it is served."""
    served(at, model)
    gated(at, f"fast={model}:p99<=5000ms@100/s,seconds=200,most_seconds=200")
    failing = STALLING.replace(b"% 300 == 0", b"> 300").replace(b"time.sleep(0.3)", b"raise ValueError('wrong')")
    register(at, model, failing, number=3)
    began = time.monotonic()
    view = at.deploy(model, versions=(3,), config=opaque_config(at, model))
    assert time.monotonic() - began < 150
    assert view.request.state is ChangeState.UNDONE
    assert "requests failed (" in view.request.message
    assert at.answer(model) == 2.0


@pytest.mark.parametrize("policy", ["pause", "undo", "accept"])
def test_load_acceptance_8_a_gate_that_cannot_tell_does_what_the_policy_says(
    at: Installation, model: str, policy: str
) -> None:
    served(at, model)
    gated(at, f"tail={model}:p99<=290ms@100/s,seconds=10,most_seconds=10,inconclusive={policy}")
    register(at, model, STALLING, number=3)
    view = at.deploy(model, versions=(3,), config=opaque_config(at, model))
    outcome, seen = measured(view)
    assert outcome is LatencyOutcome.INCONCLUSIVE
    assert view.latency[0].reason
    if policy == "accept":
        assert (view.request.state, at.answer(model)) == (ChangeState.APPLIED, 3.0)
        assert proofs(view)["latency tail"] == "accepted"
        return
    if policy == "pause":
        assert (view.request.state, at.answer(model)) == (ChangeState.PAUSED, 3.0)
        assert view.request.message.startswith(f"latency tail: {view.latency[0].reason}")
        at.changes.resume(at["author"], view.request.id, "accept")
        accepted = at.finish(view)
        assert (accepted.request.state, at.answer(model)) == (ChangeState.APPLIED, 3.0)
        assert (proofs(accepted)["latency tail"], len(accepted.latency)) == ("inconclusive", 1)
        (recorded,) = [proof for proof in accepted.request.proofs if proof["name"] == "latency tail"]
        assert recorded["measured"] == seen
        return
    assert (view.request.state, at.answer(model)) == (ChangeState.UNDONE, 2.0)
    assert f"latency tail: inconclusive, which the policy undoes: {view.latency[0].reason}" in view.request.message
    longer = f"'tail={model}:p99<=290ms@100/s,seconds=10,most_seconds=20,inconclusive=undo'"
    if seen["verdict"] == "client_limited":
        assert "run the worker on a host with processors to spare" in view.request.message
    else:
        assert f"tritonctl environment policy {ENV} --latency-gate {longer}" in view.request.message


def test_a_rollback_stops_a_measurement_at_once(at: Installation, model: str) -> None:
    served(at, model)
    at.deploy(model, versions=(2,))
    gated(at, f"long={model}:p99<=2000ms@20/s,seconds=150,most_seconds=150")
    view = at.start(at.propose(model, sets=(("instance_group[0].count", "2"),)))
    worker = threading.Thread(target=at.worker().once)
    worker.start()
    measuring(at, view, worker)
    asked = time.monotonic()
    back = at.changes.rollback(at["author"], ENV, model, to=1, reason="wrong digits")
    worker.join(100)
    assert not worker.is_alive()
    assert time.monotonic() - asked < 60  # of the 150 s that it would measure
    assert senders() == []
    rolled = at.finish(back)
    assert (rolled.request.state, at.answer(model)) == (ChangeState.APPLIED, 2.0)
    ended = at.show(view)
    assert (ended.request.state, ended.latency) == (ChangeState.UNDONE, ())
    assert "was pre-empted while the latency" in str(ended.journal[-1].error)


def test_a_worker_that_is_to_stop_does_not_wait_for_a_measurement(at: Installation, model: str) -> None:
    served(at, model)
    gated(at, f"long={model}:p99<=2000ms@20/s,seconds=150,most_seconds=150")
    view = at.start(at.propose(model, versions=(2,)))
    stop = threading.Event()
    worker = threading.Thread(target=at.worker().run, args=(stop,))
    worker.start()
    measuring(at, view, worker)
    stop.set()
    worker.join(60)  # of the 150 s that it would measure
    assert not worker.is_alive()
    assert senders() == []
    left = at.show(view)
    assert (left.request.state, left.latency) == (ChangeState.APPLYING, ())
    assert "is measured again by the next" in str(left.journal[-1].error)
    assert (at.rollback(model, to=1).request.state, at.answer(model)) == (ChangeState.APPLIED, 2.0)


def test_a_broken_glass_is_not_measured(at: Installation, model: str) -> None:
    served(at, model)
    gated(at, f"fast={model}:p99<=1ms@150/s")
    view = at.propose(model, versions=(2,))
    done = at.finish(at.changes.apply(at["admin"], view.request.id, break_glass="wrong digits in production"))
    assert (done.request.state, done.latency) == (ChangeState.APPLIED, ())
    assert proofs(done)["latency fast"] == "skipped"


def register(at: Installation, model: str, code: bytes, *, number: int) -> None:
    digest, size = at.artifacts.add_stream(io.BytesIO(code))
    recorded, _ = at.artifacts.add_stream([samples(3.0)])
    wish = Registration(
        model,
        Manifest((FileEntry("model.py", size, digest),)),
        number,
        config=opaque_config(at, model),
        samples=recorded,
    )
    at.catalog.register_version(at["author"], wish)


def measuring(at: Installation, view: ChangeView, worker: threading.Thread) -> None:
    """Returns when the worker measures the change's latency."""
    while not (journal := at.show(view).journal) or journal[-1].effect != "measure" or not senders():
        assert worker.is_alive()
        time.sleep(0.05)


def senders() -> list[int]:
    """Sending processes of this one: spawned, and not the tracker of their resources."""
    children = psutil.Process().children()
    return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
