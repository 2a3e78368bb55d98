# The worker's side of sweeps: claim one, measure round after round until the search has its answer, record it.
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_candidates import Candidate, Refusal
from controlplane.domain.sweep_course import Known
from controlplane.domain.sweep_figures import OVERTIME
from controlplane.domain.sweep_rounds import Measurement, RoundOrder, RoundResult, Verdict
from controlplane.domain.sweeps import Sweep, SweepState, evidence_digest
from controlplane.errors import ControlPlaneError, LeaseLost, RuntimeUnavailable
from controlplane.services.lease import SweepLease
from controlplane.services.ports import ArtifactStore, Bench, BenchOpener, Clock, ConfigCodec
from controlplane.services.sweep_drafts import Material, material, trial_of
from controlplane.services.sweep_next import Next, more, order_of, where
from controlplane.services.sweep_replay import is_replay, replayed
from controlplane.services.sweeps import subjects
from controlplane.services.turns import Turns
from controlplane.storage.database import DatabaseFailed
from controlplane.storage.unit_of_work import Storage

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_SAVES = 5
_SAVE_SECONDS = 0.5
_LONGEST_MESSAGE = 2000
_DIED, _MOST_DEATHS = "died", 3


class _Overtime(Exception):
    """The round takes longer than the search has time."""


class SweepRunner:
    """A companion of the worker: one sweep at a time, and no block of it beside another measurement of this process. Everything is
    decided by rows, so a sweep whose worker died goes on with the next one's; each write is guarded by the lease."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        open_bench: BenchOpener,
        artifacts: ArtifactStore,
        codec: ConfigCodec,
        *,
        name: str,
        lease_seconds: float,
        turns: Turns,
        poll_seconds: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._open_bench = open_bench
        self._artifacts = artifacts
        self._codec = codec
        self._name = name
        self._lease_seconds = lease_seconds
        self._turns = turns
        self._poll_seconds = poll_seconds
        self._monotonic = monotonic

    def run(self, stop: threading.Event) -> None:
        """Beside a worker's loop. When it is to stop, the sweep stays running, for the next worker."""
        while not stop.wait(self._poll_seconds):
            try:
                while not stop.is_set() and self.once(stop):
                    pass
            except Exception:  # whatever it is (a database that went away), the next look must still come
                _log.exception("no sweep could be served")

    def once(self, stop: threading.Event | None = None) -> bool:
        """Serve the next sweep that waits, to its end; False when none does."""
        lease = SweepLease.claim(self._storage, self._clock, owner=self._name, seconds=self._lease_seconds)
        if lease is None:
            return False
        with lease:
            try:
                self._serve(lease, stop or threading.Event())
            except LeaseLost as error:
                _log.info("sweep left as it is", extra={"sweep": lease.sweep, "reason": error.message})
                with suppress(LeaseLost):
                    self._left(lease)
            except DatabaseFailed:
                raise
            except ControlPlaneError as error:
                _log.warning("sweep failed", extra={"sweep": lease.sweep, "code": error.code, "reason": error.message})
                hint = f"; {error.hint}" if error.hint else ""
                self._fail(lease, f"{error.message}{hint}", error.code)
            except Exception as error:
                _log.exception("sweep failed", extra={"sweep": lease.sweep})
                self._fail(lease, f"unexpected: {error!r}; the worker's log has the traceback", ControlPlaneError.code)
        return True

    def _serve(self, lease: SweepLease, stop: threading.Event) -> None:
        exhausted, known = False, Known()
        self._begin(lease)
        with ExitStack() as held:
            bench: Bench | None = None
            while True:
                now, what = self._where(lease, known, exhausted=exhausted)
                if now.asks:
                    exhausted = not self._ask(lease, now, what)
                elif now.ahead is None:
                    self._finish(lease, now)
                    return
                else:
                    _check(lease, stop)
                    bench = bench or held.enter_context(self._open_bench(now.sweep))
                    self._measure(lease, now, what, bench, stop)

    def _begin(self, lease: SweepLease) -> None:
        """What takes its worker down each time must not go on doing so: each claim is counted until a block is kept, or the worker
        leaves by itself. Raises RuntimeUnavailable after too many that did neither."""
        with self._storage.write() as unit:
            progress = unit.sweeps.get(lease.sweep).progress
            died = int(str(progress.get(_DIED, 0)))
            unit.sweeps.guard(lease.sweep, lease.token, progress={**progress, _DIED: died + 1})
        if died >= _MOST_DEATHS:
            raise RuntimeUnavailable(
                f"{died} workers ended in the middle of sweep {lease.sweep}, one after the other, without measuring anything",
                hint=f"see what ended them (memory?), then: tritonctl sweep resume {lease.sweep}",
            )

    def _left(self, lease: SweepLease) -> None:
        """In good order."""
        with self._storage.write() as unit:
            progress = unit.sweeps.get(lease.sweep).progress
            unit.sweeps.guard(lease.sweep, lease.token, progress={**progress, _DIED: 0})

    def _where(self, lease: SweepLease, known: Known, *, exhausted: bool) -> tuple[Next, Material]:
        """By the rows as they are; what was decided is written to the trials."""
        with self._storage.read() as unit:
            sweep, trials = unit.sweeps.get(lease.sweep), unit.sweeps.trials(lease.sweep)
            taken, what = unit.sweeps.measurements(lease.sweep), None if is_replay(sweep) else material(unit, sweep)
        now: Next
        if what is None:
            now, what = replayed(self._storage, self._artifacts, sweep, trials, taken)
        else:
            now = where(sweep, trials, taken, what, exhausted=exhausted, known=known)
        decided = now.fates()
        with self._storage.write() as unit:
            died = sweep.progress.get(_DIED, 0)
            unit.sweeps.guard(lease.sweep, lease.token, progress={**now.progress(len(taken)), _DIED: died})
            for trial in trials:
                if decided[trial.number] != trial.fates:
                    unit.sweeps.set_fates(lease.sweep, trial.number, decided[trial.number])
            for candidate, why in now.failures.items():
                unit.sweeps.set_failure(lease.sweep, candidate, why)
        return now, what

    def _ask(self, lease: SweepLease, now: Next, what: Material) -> bool:
        """Whether there are more candidates."""
        found = more(now, what, self._codec)
        artifacts = {version: manifest.digest for version, manifest in what.manifests.items()}
        fresh: tuple[Candidate | Refusal, ...] = (*found.candidates, *found.refusals)
        known = max((trial.number for trial in now.trials), default=0)
        with self._storage.write() as unit:
            unit.sweeps.guard(lease.sweep, lease.token)
            unit.sweeps.add_trials(
                lease.sweep,
                (
                    trial_of(lease.sweep, number, one, artifacts[one.version])
                    for number, one in enumerate(fresh, known + 1)
                ),
            )
        return bool(found.candidates)

    # measure

    def _measure(self, lease: SweepLease, now: Next, what: Material, bench: Bench, stop: threading.Event) -> None:
        order, began, told = order_of(now, what), self._monotonic(), set[int]()

        def keep(measurement: Measurement) -> None:
            """The moment a block ends: from here on nobody measures it again."""
            told.add(measurement.order.place)
            progress = now.progress(len(now.measurements) + len(told), self._monotonic() - began)
            self._save(lease, measurement, progress, bench.fingerprints.get(measurement.fingerprint))
            if self._turns.wanted:
                turn.close()
                turn.enter_context(self._turn(look))

        watch = self._watch(lease, stop)

        def look() -> None:
            watch()
            if self._monotonic() - began > now.seconds:
                raise _Overtime

        try:
            with ExitStack() as turn:
                turn.enter_context(self._turn(look))
                result = bench.measure(order, self._artifacts, done=keep, go_on=look)
        except _Overtime:
            self._give_up(lease, now, order, told)
            return
        if not told:
            raise RuntimeUnavailable(
                f"the bench measured nothing of round {order.number}", hint=f"tritonctl sweep resume {lease.sweep}"
            )
        self._after(lease, result)

    def _give_up(self, lease: SweepLease, now: Next, order: RoundOrder, told: Container[int]) -> None:
        """A round that takes far too long, loading or starting its server again and again, is not waited for: each block that is
        missing is a row that says so, and blames nobody."""
        _log.warning("a round was given up", extra={"sweep": lease.sweep, "round": order.number})
        at = self._clock.now()
        missing = [
            Measurement(order.sweep, order.number, order.stage, block, Verdict.NOT_MEASURED, (OVERTIME,), at, at)
            for block in order.blocks
            if block.place not in told
        ]
        with self._storage.write() as unit:
            unit.sweeps.guard(
                lease.sweep, lease.token, progress=now.progress(len(now.measurements) + len(order.blocks))
            )
            for measurement in missing:
                unit.sweeps.take(measurement, lease.token)

    @contextmanager
    def _turn(self, look: Callable[[], None]) -> Iterator[None]:
        while not self._turns.acquire(_LOOK_SECONDS):
            look()
        try:
            yield
        finally:
            self._turns.release()

    def _save(
        self, lease: SweepLease, measurement: Measurement, progress: dict[str, Json], machine: Fingerprint | None
    ) -> None:
        """With the machine that it was made on, which no later claim may ever see again. A database that is away for a moment costs no
        measurement."""
        for left in reversed(range(_SAVES)):
            try:
                with self._storage.write() as unit:
                    unit.sweeps.guard(lease.sweep, lease.token, progress=progress)
                    unit.sweeps.take(measurement, lease.token)
                    if machine is not None:
                        unit.sweeps.keep_fingerprint(machine)
                    if measurement.verdict is Verdict.NOT_MEASURED:
                        why = measurement.failure or "; ".join(measurement.reasons)
                        unit.sweeps.set_failure(lease.sweep, measurement.order.candidate, why)
            except DatabaseFailed:
                if not left:
                    raise
                _log.warning("a measurement could not be kept; trying again", extra={"sweep": lease.sweep})
                time.sleep(_SAVE_SECONDS)
            else:
                return

    def _after(self, lease: SweepLease, result: RoundResult) -> None:
        with self._storage.write() as unit:
            unit.sweeps.guard(lease.sweep, lease.token)
            for fingerprint in (result.fingerprint, *result.also):
                unit.sweeps.keep_fingerprint(fingerprint)
            for one in result.failed:
                unit.sweeps.set_failure(lease.sweep, one.candidate, one.reason, one.log)

    def _watch(self, lease: SweepLease, stop: threading.Event) -> Callable[[], None]:
        """Raises LeaseLost when the worker is to stop, and, looking now and then, when the sweep was cancelled or taken over."""
        looked = time.monotonic()

        def look() -> None:
            nonlocal looked
            _check(lease, stop)
            if time.monotonic() < looked + _LOOK_SECONDS:
                return
            looked = time.monotonic()
            try:
                with self._storage.read() as unit:
                    token = unit.sweeps.token(lease.sweep)
            except DatabaseFailed:
                return  # the next write says whether it stays away
            if token != lease.token:
                raise LeaseLost(f"sweep {lease.sweep} was cancelled or taken over")

        return look

    # the end

    def _finish(self, lease: SweepLease, now: Next) -> None:
        """Answer, the digest of all that it rests on, and the audit entry are one transaction."""
        end = now.conclusion()
        with self._storage.write() as unit:
            unit.sweeps.guard(lease.sweep, lease.token)
            for number, decided in end.fates.items():
                unit.sweeps.set_fates(lease.sweep, number, decided)
            sweep = replace(unit.sweeps.get(lease.sweep), answer=end.answer)
            evidence = evidence_digest(sweep, unit.sweeps.trials(lease.sweep), now.measurements)
            unit.sweeps.move(
                lease.sweep,
                SweepState.FINISHED,
                answer=end.answer,
                evidence=evidence,
                message=end.message[:_LONGEST_MESSAGE],
                progress=now.progress(len(now.measurements)),
                finished_at=self._clock.now(),
            )
            details: dict[str, Json] = {
                "chosen": end.answer["chosen"],
                "evidence": evidence,
                "measurements": len(now.measurements),
            }
            unit.audit.append(AuditFact(SYSTEM, Action.SWEEP_FINISHED, subjects(sweep), details))

    def _fail(self, lease: SweepLease, reason: str, code: str) -> None:
        message = reason[:_LONGEST_MESSAGE]
        try:
            with self._storage.write() as unit:
                unit.sweeps.guard(lease.sweep, lease.token)
                sweep: Sweep = unit.sweeps.move(
                    lease.sweep,
                    SweepState.FAILED,
                    message=message,
                    finished_at=self._clock.now(),
                    progress={**unit.sweeps.get(lease.sweep).progress, _DIED: 0},
                )
                details: dict[str, Json] = {"code": code, "reason": message}
                unit.audit.append(AuditFact(SYSTEM, Action.SWEEP_FAILED, subjects(sweep), details))
        except LeaseLost as error:
            _log.info("sweep left as it is", extra={"sweep": lease.sweep, "reason": error.message})


def _check(lease: SweepLease, stop: threading.Event) -> None:
    if stop.is_set():
        raise LeaseLost(f"the worker stops: sweep {lease.sweep} goes on with the next")
