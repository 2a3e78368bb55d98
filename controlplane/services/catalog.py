# Use cases of the catalog: registering versions, reading them, objectives, collecting what nothing refers to.
from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane.domain.access import Permission, Principal
from controlplane.domain.artifacts import Manifest, check_digest
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Model, Objective, Version
from controlplane.domain.names import check_name, check_version
from controlplane.domain.objectives import check_objective, check_text
from controlplane.errors import ArtifactInvalid, InvalidInput, VersionImmutable
from controlplane.services.access import AccessService
from controlplane.services.ports import ArtifactStore, Clock, Inspector
from controlplane.services.staging import GRACE, stage
from controlplane.services.sweep_replay import replayed_blobs
from controlplane.storage.catalog import blobs_of
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_FILES = "files"
_SAMPLES = "samples.npz"
_GOLDEN = "golden.npz"
_PREFIX = "tritonctl-register-"
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Registration:
    """A wish to register a version whose files are in the artifact store.

    `number` None takes the next one. `owner`, `description` and `tags` are the model's; None keeps what it has. `samples`
    is the digest of an .npz in the store. `config` makes the version opaque: another backend's files and their config.
    """

    model: str
    manifest: Manifest
    number: int | None = None
    owner: str | None = None
    description: str | None = None
    tags: Mapping[str, str] | None = None
    source: str = ""
    samples: str | None = None
    config: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Pruning:
    """Blobs that nothing needs and their size in bytes; whether they were deleted."""

    blobs: tuple[str, ...]
    size: int
    applied: bool


class CatalogService:
    def __init__(
        self,
        storage: Storage,
        access: AccessService,
        artifacts: ArtifactStore,
        inspector: Inspector,
        clock: Clock,
        *,
        staging: Path | None = None,
    ) -> None:
        """Files are put below `staging` (the system's temporary directory when None) to be inspected; it needs room for
        the largest artifact."""
        self._storage = storage
        self._access = access
        self._artifacts = artifacts
        self._inspector = inspector
        self._clock = clock
        self._staging = staging

    # registering

    def register_version(self, principal: Principal, wish: Registration) -> Version:
        """Validate and record a version; registering the same bytes under the same number again changes nothing.

        Raises VersionImmutable when the number has other bytes, and ModelInvalid, ArtifactInvalid or NameInvalid for what
        cannot be served; then no row is left, and no blob of this registration that no version needs.
        """
        self._access.require(principal, Permission.MODEL_REGISTER, subjects={"model": wish.model[:100]})
        _check(wish)
        if wish.config is not None:  # the policy is the revision's: it says which versions serve
            wish = replace(wish, config={key: wish.config[key] for key in wish.config if key != "version_policy"})
        with self._storage.read() as unit:
            known = _same_registration(unit, wish)
        if known is not None:
            return known
        if self._staging is not None:
            stage(self._staging, _PREFIX)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self._staging) as name:
            held = _Held(self._artifacts, Path(name))
            try:
                held.fetch(wish.manifest, _FILES)
                if wish.samples is not None:
                    held.copy(wish.samples, _SAMPLES)
                recorded = self._record(principal, wish, self._inspected(principal, wish, held))
                # A registration that failed may have discarded a blob of ours a moment before our row was there.
                held.restore(blobs_of(recorded))
            finally:
                # After a failure: all that it brought along. After success: the samples, which the golden holds.
                self._artifacts.discard(held.blobs, self._needed)
            return recorded

    def _inspected(self, principal: Principal, wish: Registration, held: _Held) -> Version:
        inspection = self._inspector.inspect(
            held.directory / _FILES,
            samples=None if wish.samples is None else held.directory / _SAMPLES,
            store=self._artifacts,
            opaque_config=wish.config,
        )
        if inspection.golden is not None:
            held.copy(inspection.golden.blob, _GOLDEN)
        return Version(
            model=wish.model,
            number=wish.number or 0,
            manifest=wish.manifest,
            inspection=inspection,
            source=wish.source,
            registered_by=principal.name,
            registered_at=self._clock.now(),
            config=wish.config,
        )

    def _record(self, principal: Principal, wish: Registration, version: Version) -> Version:
        with self._storage.write() as unit:
            model = Model(
                wish.model,
                wish.owner if wish.owner is not None else principal.name,
                wish.description or "",
                tuple(sorted((wish.tags or {}).items())),
                self._clock.now(),
            )
            if unit.catalog.ensure_model(model):
                unit.audit.append(
                    AuditFact(principal.actor, Action.MODEL_REGISTERED, {"model": wish.model}, {"owner": model.owner})
                )
            else:
                known = _same_registration(unit, wish)
                if known is not None:
                    return known
                unit.catalog.update_model(
                    wish.model,
                    owner=wish.owner,
                    description=wish.description,
                    tags=None if wish.tags is None else dict(wish.tags),
                )
            recorded = replace(
                version,
                number=wish.number or check_version(unit.catalog.highest_number(wish.model) + 1),
                same_bytes_as=unit.catalog.numbers_of(wish.model, version.artifact),
            )
            unit.catalog.add_version(recorded)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.VERSION_REGISTERED,
                    {"model": wish.model, "version": f"{wish.model}:{recorded.number}"},
                    _details(recorded),
                )
            )
            return recorded

    def _needed(self, blobs: Collection[str]) -> frozenset[str]:
        """In pieces: a database takes so many parameters and no more."""
        asked = sorted(blobs)
        pieces = [asked[start : start + _AT_ONCE] for start in range(0, len(asked), _AT_ONCE)]
        with self._storage.read() as unit:
            replayed = frozenset(blob for plan in unit.sweeps.open_plans() for blob in replayed_blobs(plan))
            return replayed.intersection(asked).union(*map(unit.catalog.referenced, pieces))

    # reading

    def models(self, principal: Principal, *, after: str = "", limit: int | None = None) -> tuple[Model, ...]:
        """By name; `after` is the name at which the page before ended."""
        self._access.require(principal, Permission.CATALOG_READ)
        with self._storage.read() as unit:
            return unit.catalog.models(after=after, limit=limit)

    def get_model(self, principal: Principal, name: str) -> Model:
        self._access.require(principal, Permission.CATALOG_READ)
        with self._storage.read() as unit:
            return unit.catalog.model(name)

    def versions(
        self, principal: Principal, model: str, *, before: int | None = None, limit: int | None = None
    ) -> tuple[Version, ...]:
        """The highest number first; `before` is the number at which the page before ended. Raises NotFound for an
        unknown model."""
        self._access.require(principal, Permission.CATALOG_READ)
        with self._storage.read() as unit:
            unit.catalog.model(model)
            return unit.catalog.versions(model, before=before, limit=limit)

    def get_version(self, principal: Principal, model: str, number: int) -> Version:
        self._access.require(principal, Permission.CATALOG_READ)
        with self._storage.read() as unit:
            return unit.catalog.version(model, number)

    # objectives

    def set_objective(self, principal: Principal, objective: Objective) -> Objective:
        """Add it, or replace the one of its name. Raises InvalidInput and NotFound."""
        self._access.require(principal, Permission.OBJECTIVE_SET, subjects={"model": objective.model[:100]})
        check_objective(objective)
        with self._storage.write() as unit:
            unit.catalog.model(objective.model)
            before = unit.catalog.set_objective(objective)
            if before != objective:
                self._audit_objective(unit, principal, Action.OBJECTIVE_SET, before, objective)
        return objective

    def remove_objective(self, principal: Principal, model: str, name: str) -> None:
        self._access.require(principal, Permission.OBJECTIVE_SET, subjects={"model": model[:100]})
        with self._storage.write() as unit:
            before = unit.catalog.remove_objective(model, name)
            self._audit_objective(unit, principal, Action.OBJECTIVE_REMOVED, before, None)

    def objectives(self, principal: Principal, model: str) -> tuple[Objective, ...]:
        self._access.require(principal, Permission.CATALOG_READ)
        with self._storage.read() as unit:
            unit.catalog.model(model)
            return unit.catalog.objectives(model)

    def _audit_objective(
        self, unit: UnitOfWork, principal: Principal, action: Action, before: Objective | None, after: Objective | None
    ) -> None:
        known = after if after is not None else before
        assert known is not None
        details: JsonObject = {"name": known.name, "before": _plain(before), "after": _plain(after)}
        unit.audit.append(AuditFact(principal.actor, action, {"model": known.model}, details))

    # collecting

    def prune(self, principal: Principal, *, apply: bool) -> Pruning:
        """Find the blobs that no version, plan or revision and no replay that may go on needs, and that were not written within the
        last day: uploads that came to nothing. With `apply` they are deleted, after the audit log has said which."""
        self._access.require(principal, Permission.CATALOG_PRUNE)
        older_than = self._clock.now() - GRACE
        found = self._artifacts.sweep(self._needed, older_than=older_than, dry_run=True)
        pruning = Pruning(tuple(sorted(found)), sum(found.values()), apply)
        if apply and found:
            details: JsonObject = {"blobs": list(pruning.blobs), "size": str(pruning.size)}
            with self._storage.write() as unit:
                unit.audit.append(AuditFact(principal.actor, Action.CATALOG_PRUNED, {}, details))
            deleted = self._artifacts.sweep(self._needed, older_than=older_than, dry_run=False)
            return Pruning(tuple(sorted(deleted)), sum(deleted.values()), applied=True)
        return pruning


class _Held:
    """The files of one registration on this disk, and the blobs that it brought along."""

    def __init__(self, artifacts: ArtifactStore, directory: Path) -> None:
        self.directory = directory
        self.blobs: set[str] = set()
        self._artifacts = artifacts
        self._files: dict[str, Path] = {}

    def fetch(self, manifest: Manifest, name: str) -> None:
        """Raises NotFound for a blob that was never uploaded."""
        directory = self.directory / name
        directory.mkdir()
        self.blobs.update(entry.sha256 for entry in manifest.files)
        self._artifacts.fetch(manifest, directory)
        self._files.update({entry.sha256: directory / entry.path for entry in manifest.files})

    def copy(self, sha256: str, name: str) -> None:
        self.blobs.add(sha256)
        path = self._files[sha256] = self.directory / name
        with path.open("wb") as file:
            for chunk in self._artifacts.read(sha256):
                file.write(chunk)

    def restore(self, blobs: Iterable[str]) -> None:
        for sha256 in blobs:
            if sha256 in self._files and not self._artifacts.has(sha256):
                self._artifacts.add_file(self._files[sha256], "restored")


def _check(wish: Registration) -> None:
    check_name(wish.model, "model")
    if wish.number is not None:
        check_version(wish.number)
    if not wish.manifest.files and "ensemble_scheduling" not in (wish.config or {}):
        raise ArtifactInvalid("a version needs at least one file", hint="only an ensemble's version has none")
    if wish.samples is not None:
        check_digest(wish.samples)
    check_text(wish.owner or "", "owner", 100)
    check_text(wish.source, "source", 2000)
    check_text(wish.description or "", "description", 10_000, lines=True)
    tags = wish.tags or {}
    if len(tags) > 100:
        raise InvalidInput(f"{len(tags)} tags are too many", hint="a model has at most 100 tags")
    for key, value in tags.items():
        check_name(key, "tag")
        check_text(value, f"tag {key!r}", 1000)


def _same_registration(unit: UnitOfWork, wish: Registration) -> Version | None:
    """The version that is already what is wished for. Raises VersionImmutable when its number is something else."""
    known = None if wish.number is None else unit.catalog.find_version(wish.model, wish.number)
    if known is None or (known.artifact == wish.manifest.digest and known.config == wish.config):
        return known
    what = "bytes" if known.artifact != wish.manifest.digest else "config"
    raise VersionImmutable(
        f"version {known.number} of {wish.model!r} has other {what}: {known.artifact}, not {wish.manifest.digest}",
        hint=f"a version never changes; register it as {unit.catalog.highest_number(wish.model) + 1}, or leave out the number",
        details={"model": wish.model, "number": known.number, "artifact": known.artifact},
    )


def _details(version: Version) -> JsonObject:
    golden = version.inspection.golden
    return {
        "artifact": version.artifact,
        "size": str(version.manifest.size),
        "golden": None if golden is None else golden.blob,
        "opaque": version.inspection.signature is None,
        "same_bytes_as": list(version.same_bytes_as),
        "source": version.source,
    }


def _plain(objective: Objective | None) -> Json:
    if objective is None:
        return None
    return {name: getattr(objective, name) for name in Objective.__dataclass_fields__ if name != "model"}
