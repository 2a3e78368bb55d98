# The only engine: brings one model on one server to what is desired, effect by journalled effect.
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain

from controlplane.domain.artifacts import Manifest
from controlplane.domain.audit import AuditFact
from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import ChangeState, JournalEntry
from controlplane.domain.config_readback import mismatches
from controlplane.domain.config_revision import revision_config
from controlplane.domain.converge import FILE_EFFECTS, Desired, Effect, Observed, Step, converge
from controlplane.domain.environments import Direction, RevisionContent
from controlplane.domain.servers import Backend
from controlplane.errors import (
    ArtifactCorrupt,
    ConfigInvalid,
    ControlPlaneError,
    LeaseLost,
    LoadFailed,
    LoadUnknown,
    OperationTimedOut,
    ServerUnreachable,
    VerificationFailed,
)
from controlplane.services.lease import Lease
from controlplane.services.ports import ArtifactStore, Clock, ConfigCodec, Target
from controlplane.storage.unit_of_work import Storage

_log = logging.getLogger(__name__)

_PASSES = 4
_WAIT_FOR_LOADS = FILE_EFFECTS | {Effect.UNLOAD}
_FENCE_MARGIN_SECONDS = 60.0
_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.5

Boundary = Callable[[str], None]
"""Called before and after every external effect with its name; the fault tests kill, stop and fail the worker there."""


def no_boundary(_name: str) -> None:
    return


@dataclass(frozen=True, slots=True)
class Work:
    """For whom effects are made: the lease that guards them, and what the journal says of them."""

    lease: Lease
    change: int | None
    direction: Direction
    load_seconds: float


class Engine:
    """Holds no state between calls: everything that decides is observed or in the database."""

    def __init__(
        self,
        storage: Storage,
        artifacts: ArtifactStore,
        codec: ConfigCodec,
        clock: Clock,
        *,
        boundary: Boundary = no_boundary,
    ) -> None:
        self._storage = storage
        self._artifacts = artifacts
        self._codec = codec
        self._clock = clock
        self._boundary = boundary

    def desired(self, environment: str, model: str, content: RevisionContent) -> Desired:
        """Manifests and rendered config of a content. Raises ArtifactCorrupt when the catalog no longer has its bytes."""
        with self._storage.read() as unit:
            named = unit.environments.served_numbers(environment, model)
            keep = unit.environments.get(environment).policy.keep_revisions
            known = unit.catalog.numbered(model, {*content.numbers, *chain(*named)})
        for ref in content.versions:
            if known[ref.number].artifact != ref.artifact:
                raise ArtifactCorrupt(
                    f"version {ref.number} of {model!r} is {known[ref.number].artifact}, not {ref.artifact}"
                )
        config = None if content.config is None else revision_config(content.config, content.numbers)
        return Desired(
            config=None if config is None else self._codec.check(config),
            serving={number: known[number].manifest for number in content.numbers},
            retained={number: known[number].manifest for number in sorted({*chain(*named)})},
            beside=content.beside,
            outgrown=frozenset(chain(*named)) - frozenset(chain(*named[:keep])),
        )

    def observe(self, target: Target, model: str, desired: Desired) -> Observed:
        """Files first, then the server. Raises ServerUnreachable or ServerRefused."""
        files = target.repository.observe(model)
        versions = tuple(target.server.versions(model))
        different: tuple[str, ...] = ()
        reported: JsonObject | None = None
        if desired.config is not None and any(v.state == "READY" for v in versions):
            reported = target.server.config(model)
            if reported is not None:
                # A new version policy that selects the same versions is not even reported; the index says what it does.
                different = tuple(
                    f"{m.path}: {m.old} became {m.new}"
                    for m in mismatches(desired.config, reported)
                    if not m.path.startswith("version_policy")
                )
        with self._storage.read() as unit:
            loaded_ns = unit.environments.loaded_ns(target.spec.name, model)
        return Observed(files, self._parsed(files.config_text), versions, different, loaded_ns, reported)

    def bring(self, work: Work, target: Target, desired: Desired) -> Observed:
        """Make the server be what is desired, and return what was observed at the end.

        Waits for a server that does not answer, up to the load deadline. Raises LoadFailed, LoadUnknown, ServerError,
        LeaseLost and ArtifactCorrupt; what was done stays done and is journalled.
        """
        patience = time.monotonic() + work.load_seconds
        passes, waited = 0, False
        while passes < _PASSES:
            try:
                if _held(target) == work.lease.model:  # the worker or the change that began it is gone
                    self.restart(work, target, desired)
                self.end_restart(work, target, desired)
                observed = self.observe(target, work.lease.model, desired)
                if waited:
                    self.heard(work)
                    waited = False
                steps = converge(observed, desired)
                if not steps:
                    return observed
                passes += 1
                for step in steps:
                    self.effect(work, target, step, desired)
            except ServerUnreachable as error:
                if time.monotonic() >= patience:
                    raise
                self.wait(work, error)
                waited = True
        left = "; ".join(step.because for step in steps)
        raise VerificationFailed(f"after {_PASSES} passes it is still not as desired: {left}")

    def wait(self, work: Work, error: ServerUnreachable) -> None:
        """A moment, for a server that does not answer; the change says so meanwhile. Raises LeaseLost when the change was
        pre-empted: whoever pre-empts it need not wait for the same server."""
        with self._storage.write() as unit:
            unit.environments.guard(work.lease.environment, work.lease.model, work.lease.token)
            if work.change is not None:
                deployment = unit.environments.deployment(work.lease.environment, work.lease.model)
                if deployment is None or deployment.active_change != work.change:
                    raise LeaseLost(
                        f"change {work.change} was pre-empted while it waited for {work.lease.model!r}'s server"
                    )
                if unit.changes.get(work.change).state is ChangeState.APPLYING:
                    unit.changes.edit(work.change, message=f"waiting for the server: {error.message}")
        time.sleep(_RETRY_SECONDS)

    def heard(self, work: Work) -> None:
        """The server answers again: the change no longer says that it waits for it."""
        with self._storage.write() as unit:
            unit.environments.guard(work.lease.environment, work.lease.model, work.lease.token)
            if work.change is not None and unit.changes.get(work.change).state is ChangeState.APPLYING:
                unit.changes.edit(work.change, message="")

    def restart(self, work: Work, target: Target, desired: Desired) -> None:
        """Kill a server that we launched, put the files right while it is down, and let it start on them."""
        assert target.keeper is not None
        self.effect(work, target, Step(Effect.KILL_SERVER, "a load never returned"), desired)
        files = target.repository.observe(work.lease.model)
        for step in converge(Observed(files, self._parsed(files.config_text), (), (), None), desired):
            if step.effect in FILE_EFFECTS:
                self.effect(work, target, step, desired)
        self.effect(work, target, Step(Effect.RELEASE_SERVER, "files are right"), desired)

    def end_restart(self, work: Work, target: Target, desired: Desired) -> None:
        """Let a server start again that was left held down by a worker that died or failed. No effect of the change."""
        held = _held(target)
        if held is None:
            return
        if held != work.lease.model:
            with self._storage.read() as unit:
                other = unit.environments.deployment(work.lease.environment, held)
            if other is not None and other.lease_expires_at is not None and other.lease_expires_at > self._clock.now():
                return  # somebody is in the middle of it
        step = Step(Effect.RELEASE_SERVER, f"the restart for {held!r} broke off")
        self.effect(replace(work, change=None), target, step, desired)

    def effect(
        self,
        work: Work,
        target: Target,
        step: Step,
        desired: Desired,
        *,
        stale: Collection[Backend] = (),
        fact: Callable[[], AuditFact | None] | None = None,
    ) -> None:
        """One effect: journalled before, fenced while, journalled after.

        `stale` are the backend processes that a load replaces: those that hang are killed, as they never drain. `fact`
        looks at what was done, and what it says goes into the audit log in the transaction that journals the end.
        """
        model = work.lease.model
        while (entry := self._start(work, target, step)) is None:
            self._resolve_load(work, target, desired)
        name = f"{work.direction.value} {step.effect.value}"
        newest_ns: int | None = None
        said: AuditFact | None = None
        try:
            self._boundary(f"before {name}")
            with self._fenced(work, target):
                if step.effect is Effect.LOAD:
                    newest_ns = target.repository.observe(model).newest_ns
                self._perform(work, target, step, desired)
                if stale and target.keeper is not None:
                    target.keeper.kill_stale(stale)
            self._boundary(f"after {name}")
            if fact is not None:
                said = fact()
        except ControlPlaneError as error:
            with self._storage.write() as unit:
                unit.changes.finish(entry, self._clock.now(), error)
            raise
        with self._storage.write() as unit:
            unit.environments.guard(work.lease.environment, model, work.lease.token)
            unit.changes.finish(entry, self._clock.now())
            if step.effect in (Effect.LOAD, Effect.REMOVE_MODEL, Effect.KILL_SERVER):
                unit.environments.set_loaded_ns(target.spec.name, model, newest_ns, self._clock.now())
            if said is not None:
                unit.audit.append(said)

    def missing_blobs(self, manifest: Manifest) -> list[str]:
        """Paths whose bytes the artifact store does not have: what lies in a repository may be the last copy."""
        return [entry.path for entry in manifest.files if not self._artifacts.has(entry.sha256)]

    @contextmanager
    def _fenced(self, work: Work, target: Target) -> Iterator[None]:
        """Raises LeaseLost when the fence cannot be had: nothing was done, and a later pass goes on.

        Whoever holds the fence may be inside a load, which takes as long as the policy lets it.
        """
        model, token = work.lease.model, work.lease.token
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    target.repository.fence(model, token, wait_seconds=work.load_seconds + _FENCE_MARGIN_SECONDS)
                )
            except OperationTimedOut as error:
                raise LeaseLost(
                    f"{model!r} is left to a later pass: {error.message}", hint=error.hint, details=error.details
                ) from error
            except LeaseLost as error:
                self._outbid(work, int(str(error.details["seen"])))
                raise
            yield

    def _outbid(self, work: Work, seen: int) -> None:
        """Where the lease is still ours, the fence has seen a token that this database never gave: it is a new one, or
        was restored. The lease goes back with a greater token, for the next claim. Raises LeaseLost where it is not."""
        environment, model = work.lease.environment, work.lease.model
        with self._storage.write() as unit:
            unit.environments.guard(
                environment, model, work.lease.token, lease_token=seen + 1, lease_owner=None, lease_expires_at=None
            )
        _log.warning("the fence is ahead of the database", extra={"environment": environment, "model": model})

    def _perform(self, work: Work, target: Target, step: Step, desired: Desired) -> None:
        model, repository = work.lease.model, target.repository
        match step.effect:
            case Effect.WRITE_VERSION:
                assert step.version is not None
                repository.write_version(model, step.version, desired.serving[step.version], self._artifacts)
            case Effect.REMOVE_VERSION:
                assert step.version is not None
                repository.remove_version(model, step.version)
            case Effect.WRITE_BESIDE:
                repository.write_beside(model, desired.beside, self._artifacts)
            case Effect.WRITE_CONFIG:
                assert desired.config is not None
                repository.write_config(model, self._codec.render(desired.config))
            case Effect.REMOVE_STRAYS:
                repository.remove_strays(model)
            case Effect.REMOVE_MODEL:
                repository.remove_model(model)
            case Effect.TOUCH:
                repository.touch(model)
            case Effect.LOAD:
                target.server.load(model, deadline_seconds=work.load_seconds)
            case Effect.UNLOAD:
                self._unload(work, target)
            case Effect.KILL_SERVER:
                assert target.keeper is not None
                target.keeper.kill(model)
            case Effect.RELEASE_SERVER:
                assert target.keeper is not None
                target.keeper.release()

    def _unload(self, work: Work, target: Target) -> None:
        """Unload returns at once in Triton; ours returns when no version takes requests any more."""
        target.server.unload(work.lease.model)
        deadline = time.monotonic() + work.load_seconds
        while any(v.state in ("READY", "LOADING") for v in target.server.versions(work.lease.model)):
            if time.monotonic() > deadline:
                raise OperationTimedOut(f"{work.lease.model!r} is still served {work.load_seconds:.0f} s after unload")
            time.sleep(_POLL_SECONDS)

    def _start(self, work: Work, target: Target, step: Step) -> int | None:
        """The journal's number of the effect; None when a load must have an end first."""
        with self._storage.write() as unit:
            unit.environments.guard(work.lease.environment, work.lease.model, work.lease.token)
            waits = step.effect in _WAIT_FOR_LOADS
            if waits and unit.changes.unresolved_load(target.spec.name, work.lease.model):
                return None
            return unit.changes.start(
                JournalEntry(
                    environment=work.lease.environment,
                    model=work.lease.model,
                    change=work.change,
                    server=target.spec.name,
                    direction=work.direction,
                    effect=step.effect.value,
                    version=step.version,
                    because=step.because,
                    lease_token=work.lease.token,
                    started_at=self._clock.now(),
                )
            )

    def _resolve_load(self, work: Work, target: Target, desired: Desired) -> None:
        """Wait for a load whose end we do not know: Triton joins a second load of the same model to the first."""
        try:
            self.effect(work, target, Step(Effect.LOAD, "an earlier load has no known end"), desired)
        except LoadUnknown:
            raise
        except LoadFailed:
            return  # it has ended, which is all that was asked

    def _parsed(self, text: str | None) -> JsonObject | None:
        if text is None:
            return None
        try:
            return self._codec.parse(text)
        except ConfigInvalid:
            return None


def _held(target: Target) -> str | None:
    return None if target.keeper is None else target.keeper.held()
