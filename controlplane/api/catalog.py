# Models, versions and objectives.
from __future__ import annotations

from clients.control import types
from controlplane.api import pages, wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.catalog import Objective, Version
from controlplane.services.catalog import Registration


def list_models(
    caller: Caller, rooms: Rooms, cursor: str | None = None, limit: pages.Limit = 50
) -> types.Page[types.Model]:
    """By name."""
    found = rooms.catalog.models(caller, after=pages.key(cursor) or "", limit=limit + 1)
    following = pages.cursor(found[limit - 1].name) if len(found) > limit else None
    return types.Page(tuple(wire.of(types.Model, item) for item in found[:limit]), following)


def show_model(model: str, caller: Caller, rooms: Rooms) -> types.Model:
    return wire.of(types.Model, rooms.catalog.get_model(caller, model))


def list_versions(
    model: str, caller: Caller, rooms: Rooms, cursor: str | None = None, limit: pages.Limit = 50
) -> types.Page[types.Version]:
    """The highest number first."""
    found = rooms.catalog.versions(caller, model, before=pages.after(cursor), limit=limit + 1)
    following = pages.cursor(found[limit - 1].number) if len(found) > limit else None
    return types.Page(tuple(_version(item) for item in found[:limit]), following)


def show_version(model: str, number: int, caller: Caller, rooms: Rooms) -> types.Version:
    return _version(rooms.catalog.get_version(caller, model, number))


def register_version(model: str, body: types.NewVersion, caller: Caller, rooms: Rooms) -> types.Version:
    """The files were uploaded before. They are validated in a child process, which may take minutes."""
    files = sorted(body.files, key=lambda file: file.path)
    wish = Registration(
        model=model,
        manifest=Manifest(tuple(FileEntry(file.path, file.size, file.sha256) for file in files)),
        number=body.number,
        owner=body.owner,
        description=body.description,
        tags=body.tags,
        source=body.source,
        samples=body.samples,
        config=rooms.configs.parse(body.config) if body.config is not None else None,
    )
    return _version(rooms.catalog.register_version(caller, wish))


def prune(body: types.NewPruning, caller: Caller, rooms: Rooms) -> types.Pruning:
    """What nothing needs: named, and deleted where the body says `apply`."""
    return wire.of(types.Pruning, rooms.catalog.prune(caller, apply=body.apply))


def list_objectives(model: str, caller: Caller, rooms: Rooms) -> types.Page[types.Objective]:
    return types.Page(tuple(wire.of(types.Objective, item) for item in rooms.catalog.objectives(caller, model)))


def set_objective(model: str, name: str, body: types.NewObjective, caller: Caller, rooms: Rooms) -> types.Objective:
    """Adds it, or replaces the one of its name."""
    objective = Objective(
        model=model,
        name=name,
        metric=body.metric,
        qualifier=body.qualifier,
        direction=body.direction,
        bound=body.bound,
        stakeholder=body.stakeholder,
        weight=body.weight,
    )
    return wire.of(types.Objective, rooms.catalog.set_objective(caller, objective))


def remove_objective(model: str, name: str, caller: Caller, rooms: Rooms) -> None:
    rooms.catalog.remove_objective(caller, model, name)


def _version(version: Version) -> types.Version:
    found = version.inspection
    return wire.of(
        types.Version,
        version,
        size=version.manifest.size,
        files=tuple(wire.of(types.File, entry) for entry in version.manifest.files),
        backend=found.backend,
        signature=wire.of(types.Signature, found.signature) if found.signature else None,
        golden=wire.of(types.Golden, found.golden) if found.golden else None,
        skipped=found.skipped,
        notes=found.notes,
    )
