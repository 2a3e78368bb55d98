# Rounds on one scratch server: candidates loaded side by side, their blocks in the order that was given.
"""A candidate that takes the server or its own backend down gets a second chance, since somebody else may have done it, and a
killed server is no reason to give a candidate up. Then it is out of the round, and the others go on on a fresh server."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from clients.inference import InferenceError, Tls
from clients.load.calibrate import calibrate
from clients.load.errors import LoadFailed as SenderFailed
from clients.load.errors import LoadInputError
from clients.load.measure import Limits, Load, measure
from clients.load.measure import Measurement as Measured
from clients.load.processes import Records, SenderPool
from clients.load.server import facts
from clients.load.transports import Via
from controlplane.bench import fingerprint
from controlplane.bench.awake import kept_awake
from controlplane.bench.blocks import Aim, Silent, Subject, not_measured, take
from controlplane.bench.memory import Killed
from controlplane.bench.requests import traffic
from controlplane.bench.scratch import Blobs, EmbeddedScratch, RemoteScratch, Scratch, only_one
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.golden import load_cases
from controlplane.domain.sweep_rounds import (
    BenchModel,
    BlockOrder,
    CandidateFailure,
    Measurement,
    Requests,
    RoundOrder,
    RoundResult,
)
from controlplane.errors import (
    ControlPlaneError,
    LoadUnknown,
    RuntimeUnavailable,
    ServerRefused,
    ServerUnreachable,
)
from controlplane.triton.runtime.find import TritonRuntime

_CHANCES = 2
_CALL_SECONDS = 10.0
_WARM_UP_SECONDS, _WARM_UP_ANSWERS = (0.5, 2.0, 8.0), 16
"""So long, and longer where that brought too few answers."""
_FULL = (8, 64)
"""Calls in flight while a candidate is warmed up: between these, enough to fill its batches."""
_CALIBRATION_SECONDS = 0.4
_BENCH_GONE = (RuntimeUnavailable, ServerRefused)

Done = Callable[[Measurement], None]
GoOn = Callable[[], None]


class _Died(Exception):
    """The server or a backend ended, or answers nothing any more; says how."""


class _Ended(BaseException):
    """What `go_on` raised: no failure of a candidate, whatever it is."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


@dataclass(slots=True)
class _Round:
    order: RoundOrder
    store: Blobs
    go_on: GoOn
    failed: dict[str, CandidateFailure] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)

    def requests(self, model: BenchModel) -> Requests:
        return self.order.requests[model.version]


class LocalBench:
    """Implements the Bench port on a scratch server. Not for use by several threads; the sending processes die with the one
    that measures first."""

    def __init__(self, scratch: Scratch, *, load_seconds: float = 120.0, kept_awake: bool = False) -> None:
        """`kept_awake` is what the fingerprint says of this host's processors."""
        self.scratch = scratch
        self._load_seconds = load_seconds
        self._kept_awake = kept_awake
        self._pool = SenderPool()
        self._loaded: dict[str, Subject] = {}
        """By candidate."""
        self._wanted_as: dict[str, tuple[BenchModel, Requests]] = {}
        self._ceilings: dict[int, float] = {}
        self._taken: Fingerprint | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    @property
    def fingerprint(self) -> Fingerprint:
        """Of this bench; taken once, so that clocks that move give no new one."""
        if self._taken is None:
            local = self.scratch.local
            host = replace(fingerprint.read_host(), kept_awake=self._kept_awake) if local else None
            self._taken = fingerprint.take(self.scratch.serving(), local=local, host=host)
        return self._taken

    @property
    def fingerprints(self) -> Mapping[str, Fingerprint]:
        return {self.fingerprint.digest: self.fingerprint}

    def measure(self, order: RoundOrder, store: Blobs, *, done: Done, go_on: GoOn) -> RoundResult:
        """As the port says. Candidates stay in `failed` for this round alone."""
        round_ = _Round(order, store, _ending(go_on))
        measurements = []
        try:
            self._pool.prepare()
            self._take_away(round_)
            self._load_all(round_)
            for block in order.blocks:
                round_.go_on()
                measurement = self._block(round_, block)
                done(measurement)
                measurements.append(measurement)
        except _Ended as ended:
            raise ended.error from None
        return RoundResult(tuple(measurements), tuple(round_.failed.values()), self.fingerprint)

    def _take_away(self, round_: _Round) -> None:
        """What is loaded and not wanted any more, or not as it is."""
        wanted = {model.candidate: (model, round_.requests(model)) for model in round_.order.models}
        gone = [name for name in self._loaded if self._wanted_as.get(name) != wanted.get(name)]
        if gone:
            self._unload(round_, [self._loaded[name].name for name in gone])
        for name in gone:
            del self._loaded[name]
        self._wanted_as = wanted

    def _load_all(self, round_: _Round) -> None:
        """Until every candidate is loaded or failed. One that takes the server down takes the others with it, which are loaded
        again; each time counts against it, so this ends."""
        self._drop_lost(round_)
        while missing := [
            model
            for model in round_.order.models
            if model.candidate not in self._loaded and model.candidate not in round_.failed
        ]:
            round_.go_on()
            self._load(round_, missing[0])

    def _unload(self, round_: _Round, names: list[str]) -> None:
        """A server that has gone has unloaded everything; the next load finds that out."""
        with suppress(ServerUnreachable):
            self.scratch.unload(names, go_on=round_.go_on)

    def _load(self, round_: _Round, model: BenchModel) -> None:
        if not self.scratch.alive():
            self._restart(round_)
        scratch, mark, killed = self.scratch, self.scratch.mark(), Killed.now()
        try:
            scratch.load(model, round_.store, seconds=self._load_seconds, go_on=round_.go_on)
            self._loaded[model.candidate] = self._warmed_up(round_, model)
        except _BENCH_GONE:
            raise
        except (_Died, LoadUnknown, ServerUnreachable, SenderFailed) as error:
            self._strike(round_, model.candidate, str(error), mark, killed)
        except (ControlPlaneError, InferenceError, LoadInputError, ValueError) as error:
            if not scratch.alive() or scratch.lost(model.scratch_name):
                self._strike(round_, model.candidate, str(error), mark, killed)
                return
            self._fail(round_, model.candidate, str(error), mark, killed)
            self._unload(round_, [model.scratch_name])

    def _warmed_up(self, round_: _Round, model: BenchModel) -> Subject:
        """Raises _Died, or ValueError with the failure when it answers nothing."""
        name = model.scratch_name
        asked = round_.requests(model)
        known = facts(self.scratch.client, name, version=model.version, deadline_seconds=_CALL_SECONDS)
        cases = load_cases(b"".join(round_.store.read(asked.golden)))
        target = self.scratch.target
        if known.decoupled:
            target = replace(target, via=Via(kind="stream", tls=target.via.tls))
        what = traffic(cases, asked, known, name, model.version)
        full = min(max(_FULL[0], 2 * known.most_rows), _FULL[1])
        for seconds in _WARM_UP_SECONDS:
            limits = Limits(seconds=seconds, cap=seconds, warm_up=0.0, precision=0.0, watched=50.0, timeout=30.0)
            measured = measure(
                target,
                what,
                Load(concurrency=full),
                limits,
                progress=_told(round_.go_on),
                pool=self._pool,
            )
            if measured.completed >= _WARM_UP_ANSWERS or measured.failed:
                break
        said = next((f"{code}: {text}" for code, text in measured.failures.items()), "no answer came in time")
        self._check(name, sum(measured.failed.values()), said)
        if not measured.completed:
            raise ValueError(f"it was loaded and answered nothing: {said}")
        return Subject(name, model.version, target, what, around=_around(measured))

    def _block(self, round_: _Round, block: BlockOrder) -> Measurement:
        broken = 0
        while True:
            self._load_all(round_)
            failure = round_.failed.get(block.candidate)
            subject = self._loaded.get(block.candidate)
            if failure is not None or subject is None:
                reason = failure.reason if failure is not None else "it is not among the models of the round"
                return not_measured(round_.order, block, reason, fingerprint=self.fingerprint.digest)
            mark, killed = self.scratch.mark(), Killed.now()
            aim = Aim(self.scratch.client, self._pool, self._ceiling, self.fingerprint.digest, round_.go_on)
            try:
                taken = take(round_.order, block, subject, aim)
                row = taken.measurement
                self._check(subject.name, row.failed, row.failure)
                if row.sent and not row.completed:
                    how = f"it answered nothing any more: {row.failure}"
                    self._strike(round_, block.candidate, how, mark, killed)
                    continue
            except (_Died, Silent, InferenceError) as error:
                self._strike(round_, block.candidate, str(error), mark, killed)
                continue
            except SenderFailed as error:  # ours, not the candidate's
                broken += 1
                if broken < _CHANCES:
                    continue
                return not_measured(round_.order, block, str(error), fingerprint=self.fingerprint.digest)
            except (ControlPlaneError, LoadInputError) as error:
                return not_measured(round_.order, block, str(error), fingerprint=self.fingerprint.digest)
            self._loaded[block.candidate] = replace(subject, around=taken.around)
            return row

    def _check(self, name: str, failed: int, said: str) -> None:
        if failed and (how := self.scratch.lost(name)):
            raise _Died(f"{how}; {said}")

    def _strike(self, round_: _Round, candidate: str, how: str, mark: int, killed: Killed | None) -> None:
        """It is taken from the server, or everything is where the server is gone, or hangs as far as one can see. The log is read
        before the server starts again."""
        strikes = round_.strikes[candidate] = round_.strikes.get(candidate, 0) + 1
        if strikes >= _CHANCES:
            self._fail(round_, candidate, f"{how} (twice)", mark, killed)
        name = next(model.scratch_name for model in round_.order.models if model.candidate == candidate)
        if self.scratch.lost(name) and self.scratch.alive():
            self._unload(round_, [name])
            self._loaded.pop(candidate, None)
        else:
            self._restart(round_)

    def _drop_lost(self, round_: _Round) -> None:
        """Those that died while nothing was sent to them: they are loaded again, and it does not count against them."""
        if not self.scratch.alive():
            self._restart(round_)
        gone = [candidate for candidate, subject in self._loaded.items() if self.scratch.lost(subject.name)]
        self._unload(round_, [self._loaded[candidate].name for candidate in gone])
        for candidate in gone:
            del self._loaded[candidate]

    def _fail(self, round_: _Round, candidate: str, reason: str, mark: int, killed: Killed | None) -> None:
        if said := Killed.since(killed):
            reason = f"{reason}; {said}"
        round_.failed[candidate] = CandidateFailure(candidate, reason, self.scratch.log(mark))

    def _restart(self, round_: _Round) -> None:
        self._loaded.clear()
        self.scratch.restart(round_.go_on)

    def _ceiling(self, concurrency: int) -> float:
        """In calls a second, by the next power of two."""
        size = 1 << max(2, (concurrency - 1).bit_length())
        if size not in self._ceilings:
            found = calibrate(
                self.scratch.target,
                concurrency=size,
                processes=1,
                connections=1,
                seconds=_CALIBRATION_SECONDS,
                floor=0.0,
                pool=self._pool,
            )
            self._ceilings[size] = found.ceiling if found.ceiling > 0 else math.inf
        return self._ceilings[size]


@contextmanager
def embedded_bench(home: Path, runtime: TritonRuntime, *, keep_awake: bool = False) -> Iterator[LocalBench]:
    """On a server that is launched in `home` and gone at the end; with `keep_awake` no processor is idle until then. Raises
    RuntimeUnavailable."""
    with (
        kept_awake() if keep_awake else nullcontext(),
        EmbeddedScratch(home, runtime) as scratch,
        LocalBench(scratch, kept_awake=keep_awake) as bench,
    ):
        yield bench


@contextmanager
def bench_at(
    address: str, *, key: str | None = None, tls: Tls | None = None, home: Path | None = None, alone: bool = False
) -> Iterator[LocalBench]:
    """On the bench server at `host:port`; `key` is its admin key. With a `home` no two processes of this machine measure there at
    once. Raises ServerUnreachable, and Conflict where it is to be `alone` and serves others."""
    with (
        nullcontext() if home is None else only_one(home),
        RemoteScratch(address, key=key, tls=tls, alone=alone) as scratch,
        LocalBench(scratch) as bench,
    ):
        yield bench


def _told(go_on: GoOn) -> Callable[[float, Records], bool]:
    def progress(_elapsed: float, _records: Records) -> bool:
        go_on()
        return True

    return progress


def _around(measured: Measured) -> float:
    """What it answers a second with many in flight. Answers that all came at one moment, after a stall, have any rate."""
    return max(min(measured.rate.value, 2 * measured.completed / _WARM_UP_SECONDS[0]), 1.0)


def _ending(go_on: GoOn) -> GoOn:
    def checked() -> None:
        try:
            go_on()
        except BaseException as error:
            raise _Ended(error) from None

    return checked
