# What a change looks at before its first effect: whether it may touch what lies there.
from __future__ import annotations

import time
from dataclasses import dataclass

from controlplane.domain.converge import Desired, Found, Observed, differences, file_differences, lies_there, unmanaged
from controlplane.domain.environments import RevisionContent
from controlplane.errors import ServerUnreachable
from controlplane.services.engine import Engine, Work
from controlplane.services.ports import Target
from controlplane.storage.unit_of_work import Storage


@dataclass(frozen=True, slots=True)
class Look:
    """`refusal` says why the change must not touch anything, empty when it may. `found` is what a first change takes
    over, to be put back when it is undone."""

    refusal: str = ""
    drift: tuple[str, ...] = ()
    found: Found | None = None


class FirstLook:
    """Observes, and writes no file."""

    def __init__(self, storage: Storage, engine: Engine) -> None:
        self._storage = storage
        self._engine = engine

    def at_base(self, work: Work, target: Target, base: RevisionContent) -> Look:
        """Is it what was accepted? Content that is right and not served is loading, or will be healed: no drift."""
        desired = self._engine.desired(work.lease.environment, work.lease.model, base)
        observed = self._observe(work, target, desired)
        if desired.config is not None and not file_differences(observed, desired) and not observed.mismatches:
            return Look()
        drift = differences(observed, desired)
        if not drift:
            return Look()
        return Look(
            f"drift was observed before the first effect: {'; '.join(drift)}; reconcile or roll back first", drift
        )

    def at_nothing(self, work: Work, target: Target, wanted: RevisionContent) -> Look:
        """Does something lie there that we never put there?"""
        model = work.lease.model
        desired = self._engine.desired(work.lease.environment, model, wanted)
        observed = self._observe(work, target, desired)
        if not lies_there(observed):
            return Look()
        with self._storage.read() as unit:
            registered = {version.number: version.manifest for version in unit.catalog.versions(model)}
        reasons = unmanaged(observed, desired, registered)
        if reasons or observed.config is None:
            there = [f"version {number}" for number in sorted(observed.files.versions)]
            return Look(
                f"{model!r} is on this server already ({', '.join(there) or 'no version in its files'}) and is not under"
                f" management, so nothing was touched: {'; '.join(reasons)};"
                " `tritonctl model adopt` takes what is served under management"
            )
        files = observed.files
        found = Found(observed.config, tuple(sorted(observed.ready)), tuple(sorted(files.versions)), files.beside)
        return Look(found=found)

    def _observe(self, work: Work, target: Target, desired: Desired) -> Observed:
        """Waits for a server that does not answer, up to the load deadline."""
        patience, waited = time.monotonic() + work.load_seconds, False
        while True:
            try:
                self._engine.end_restart(work, target, desired)
                observed = self._engine.observe(target, work.lease.model, desired)
            except ServerUnreachable as error:
                if time.monotonic() >= patience:
                    raise
                self._engine.wait(work, error)
                waited = True
            else:
                if waited:
                    self._engine.heard(work)
                return observed
