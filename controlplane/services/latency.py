# Latency gates of a change: planned before the load, measured after it on each server, recorded whatever comes out.
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.catalog import Version
from controlplane.domain.changes import ChangeKind, ChangeRequest, GateResult, JournalEntry, Plan
from controlplane.domain.environments import Direction, Proof, ProofStatus
from controlplane.domain.latency_gates import (
    ACCEPT,
    LATER,
    MEASURE,
    PAUSE,
    UNDO,
    LatencyGate,
    LatencyMeasurement,
    LatencyOutcome,
    LatencySeen,
    gates_from_json,
    judge,
)
from controlplane.errors import ControlPlaneError, LeaseLost
from controlplane.services.engine import Boundary, Work, no_boundary
from controlplane.services.ports import Clock, GoldenReader, Target
from controlplane.services.turns import Turns
from controlplane.storage.unit_of_work import Storage

_LOOK_SECONDS = 1.0
_BECOMES = {
    ACCEPT: "the change is accepted",
    PAUSE: "the change pauses until a human decides",
    UNDO: "the change is undone",
}


def planned(gates: Sequence[LatencyGate], model: str, version: Version) -> tuple[GateResult, ...]:
    """What a plan says of the gates on this model; `version` is the highest, which requests without a number get."""
    found = []
    for gate in gates:
        if not gate.matches(model):
            continue
        if version.inspection.golden is None and gate.inconclusive != ACCEPT:
            missing = f"version {version.number} has no recorded inferences to send: register it with --samples"
            found.append(GateResult(gate.title, LatencyOutcome.INCONCLUSIVE.value, missing))
            continue
        times = f"for {gate.seconds} s" + (f" to {gate.most_seconds} s" if gate.most_seconds > gate.seconds else "")
        words = f"{gate.words}: measured {times} after the load; if that cannot tell, {_BECOMES[gate.inconclusive]}"
        found.append(GateResult(gate.title, LATER, words))
    return tuple(found)


def exempt(gates: Sequence[LatencyGate], model: str) -> tuple[str, ...]:
    """What a rollback's plan says of them."""
    names = ", ".join(gate.name for gate in gates if gate.matches(model))
    return (f"no latency gate holds it up ({names}): going back is to be fast",) if names else ()


class LatencyGates:
    """Used by the worker, under a lease. Rollbacks, undos, reconciliations and healing are not gated: going back is to be
    fast. One measurement at a time in a process, those of sweeps included, so that none disturbs another."""

    def __init__(
        self,
        storage: Storage,
        read_golden: GoldenReader,
        clock: Clock,
        *,
        boundary: Boundary = no_boundary,
        turns: Turns | None = None,
    ) -> None:
        self._storage = storage
        self._read_golden = read_golden
        self._clock = clock
        self._boundary = boundary
        self._one = turns or Turns()
        self._stopping = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Beside a worker's loop: a worker that is to stop does not wait for a measurement, which is made again."""
        stop.wait()
        self._stopping.set()

    def prove(
        self,
        work: Work,
        target: Target,
        request: ChangeRequest,
        plan: Plan,
        versions: Sequence[Version],
        *,
        accepted: bool,
    ) -> tuple[Proof, ...]:
        """A proof for each gate of the plan, on one server whose answers were found right; `accepted`: a human takes what
        could not be told as it is, so it is not measured again. Raises LeaseLost when the change was pre-empted meanwhile."""
        if work.direction is Direction.BACK or request.kind is not ChangeKind.CHANGE:
            return ()
        due = {gate.name for gate in plan.gates if gate.outcome == LATER}
        gates = [gate for gate in gates_from_json(plan.clauses.get("latency_gates", [])) if gate.title in due]
        if request.break_glass is not None:
            words = "applied by break-glass: not measured"
            return tuple(Proof(gate.title, ProofStatus.SKIPPED, words) for gate in gates)
        undecided = self._undecided(target, request, versions[-1]) if accepted else {}
        return tuple(
            self._taken(gate, undecided[gate.name])
            if gate.name in undecided
            else self._prove(work, target, request, gate, versions[-1])
            for gate in gates
        )

    def _taken(self, gate: LatencyGate, known: LatencyMeasurement) -> Proof:
        return Proof(gate.title, ProofStatus.INCONCLUSIVE, f"accepted by a human: {known.reason}", known.seen)

    def _undecided(self, target: Target, request: ChangeRequest, version: Version) -> dict[str, LatencyMeasurement]:
        """By gate, the last measurements of this server that could not tell."""
        with self._storage.read() as unit:
            measured = unit.latency.of_change(request.id)
        last = {str(m.gate["name"]): m for m in measured if (m.server, m.version) == (target.spec.name, version.number)}
        return {name: m for name, m in last.items() if m.outcome is LatencyOutcome.INCONCLUSIVE}

    def _prove(self, work: Work, target: Target, request: ChangeRequest, gate: LatencyGate, version: Version) -> Proof:
        with self._turn(work):
            measurement = self._measure(work, target, request, gate, version)
        env, model, seen = request.environment, request.model, measurement.seen
        match measurement.outcome:
            case LatencyOutcome.PASSED:
                return Proof(gate.title, ProofStatus.SHOWN, measurement.reason, seen)
            case LatencyOutcome.FAILED:
                hint = f"next: tritonctl change propose {model} --env {env} with what answers faster"
                return Proof(gate.title, ProofStatus.FAILED, f"{measurement.reason}; {hint}", seen)
        if gate.inconclusive == ACCEPT:
            words = f"inconclusive, which the policy accepts: {measurement.reason}"
            return Proof(gate.title, ProofStatus.ACCEPTED, words, seen)
        longer = f"tritonctl environment policy {env} --latency-gate '{gate.longer()}'"
        hint = f"to measure longer: {longer}, then propose it again, as a plan keeps the gates that it was made under"
        if seen["verdict"] == "client_limited":
            hint = "more time does not help where the generator was late: run the worker on a host with processors to spare"
        if gate.inconclusive == PAUSE:
            return Proof(gate.title, ProofStatus.INCONCLUSIVE, f"{measurement.reason}; {hint}", seen)
        words = f"inconclusive, which the policy undoes: {measurement.reason}; {hint}"
        return Proof(gate.title, ProofStatus.FAILED, words, seen)

    def _measure(
        self, work: Work, target: Target, request: ChangeRequest, gate: LatencyGate, version: Version
    ) -> LatencyMeasurement:
        """Journalled before and after, as effects are, though nothing outside changes by it."""
        lease, name = work.lease, f"{work.direction.value} {MEASURE}"
        started_at = self._clock.now()
        with self._storage.write() as unit:
            unit.environments.guard(lease.environment, lease.model, lease.token)
            entry = unit.changes.start(
                JournalEntry(
                    environment=lease.environment,
                    model=lease.model,
                    change=request.id,
                    server=target.spec.name,
                    direction=work.direction,
                    effect=MEASURE,
                    version=version.number,
                    because=f"latency gate {gate.name}: {gate.words}",
                    lease_token=lease.token,
                    started_at=started_at,
                )
            )
        try:
            self._boundary(f"before {name}")
            seen = self._seen(work, target, request, gate, version)
            self._boundary(f"after {name}")
        except ControlPlaneError as error:
            with self._storage.write() as unit:
                unit.changes.finish(entry, self._clock.now(), error)
            raise
        outcome, reason = judge(gate, seen)
        finished_at = self._clock.now()
        measurement = LatencyMeasurement(
            change=request.id,
            server=target.spec.name,
            version=version.number,
            gate=gate.to_json(),
            outcome=outcome,
            reason=reason,
            seen=seen.to_json(),
            started_at=started_at,
            finished_at=finished_at,
        )
        subjects = {"environment": lease.environment, "model": lease.model, "change": str(request.id)}
        details: dict[str, Json] = {
            "server": measurement.server,
            "version": measurement.version,
            "gate": measurement.gate,
            "outcome": outcome.value,
            "reason": reason,
            "seen": measurement.seen,
        }
        with self._storage.write() as unit:
            unit.environments.guard(lease.environment, lease.model, lease.token)
            unit.changes.finish(entry, finished_at)
            unit.latency.add(measurement)
            unit.audit.append(AuditFact(SYSTEM, Action.CHANGE_MEASURED, subjects, details))
        return measurement

    def _seen(
        self, work: Work, target: Target, request: ChangeRequest, gate: LatencyGate, version: Version
    ) -> LatencySeen:
        golden = version.inspection.golden
        if golden is None:
            return LatencySeen("broken", (f"version {version.number} has no recorded inferences to send",))
        inputs = [case.inputs for case in self._read_golden(golden)]
        return target.server.latency(
            work.lease.model, version.number, gate, inputs, seed=request.id, go_on=self._wanted(work)
        )

    def _wanted(self, work: Work) -> Callable[[], None]:
        """Looks, now and then, whether the change is still the deployment's and the lease ours: else raises LeaseLost."""
        looked = 0.0

        def look() -> None:
            nonlocal looked
            if self._stopping.is_set():
                raise LeaseLost(f"the worker stops: the latency of {work.lease.model!r} is measured again by the next")
            if time.monotonic() < looked + _LOOK_SECONDS:
                return
            with self._storage.read() as unit:
                deployment = unit.environments.deployment(work.lease.environment, work.lease.model)
            if deployment is None or (deployment.active_change, deployment.lease_token) != (
                work.change,
                work.lease.token,
            ):
                raise LeaseLost(
                    f"change {work.change} was pre-empted while the latency of {work.lease.model!r} was measured"
                )
            looked = time.monotonic()

        return look

    @contextmanager
    def _turn(self, work: Work) -> Iterator[None]:
        wanted = self._wanted(work)
        while not self._one.acquire(timeout=_LOOK_SECONDS):
            wanted()
        try:
            yield
        finally:
            self._one.release()
