# Models, their immutable versions with manifests, and objectives.
from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.artifacts import Manifest
from controlplane.domain.canonical import Json
from controlplane.domain.catalog import Inspection, Model, Objective, Version
from controlplane.errors import NotFound
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


class ModelRow(Base):
    __tablename__ = "models"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    owner: Mapped[str]
    description: Mapped[str]
    tags: Mapped[dict[str, str]] = mapped_column(CanonicalJson)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VersionRow(Base):
    __tablename__ = "versions"
    __table_args__ = (
        ForeignKeyConstraint(["model"], ["models.name"]),
        Index(None, "artifact"),
    )
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    artifact: Mapped[str] = mapped_column(String(71))
    manifest: Mapped[dict[str, Any]] = mapped_column(CanonicalJson)
    inspection: Mapped[dict[str, Any]] = mapped_column(CanonicalJson)
    source: Mapped[str]
    registered_by: Mapped[str] = mapped_column(String(100))
    registered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    same_bytes_as: Mapped[list[int]] = mapped_column(CanonicalJson)
    config: Mapped[dict[str, Json] | None] = mapped_column(CanonicalJson)


class VersionBlobRow(Base):
    """Which blobs a version needs: its files and its golden. What no row names may be collected."""

    __tablename__ = "version_blobs"
    __table_args__ = (
        ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
        Index(None, "sha256"),
    )
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sha256: Mapped[str] = mapped_column(String(71), primary_key=True)


class BesideBlobRow(Base):
    """Which blobs the plans and revisions of a model need beside their versions: what no row names may be collected."""

    __tablename__ = "beside_blobs"
    __table_args__ = (
        ForeignKeyConstraint(["model"], ["models.name"]),
        Index(None, "sha256"),
    )
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(71), primary_key=True)


class ObjectiveRow(Base):
    __tablename__ = "objectives"
    __table_args__ = (ForeignKeyConstraint(["model"], ["models.name"]),)
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    metric: Mapped[str] = mapped_column(String(100))
    qualifier: Mapped[str] = mapped_column(String(100))
    direction: Mapped[str] = mapped_column(String(20))
    bound: Mapped[str] = mapped_column(String(100))
    stakeholder: Mapped[str] = mapped_column(String(100))
    weight: Mapped[str | None] = mapped_column(String(100))


class CatalogStore:
    """Works inside the caller's transaction and never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # models

    def ensure_model(self, model: Model) -> bool:
        """Add it unless one of its name exists, and hold the row until the transaction ends: registrations of one model
        take turns. True when it was added."""
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        values = {
            "name": model.name,
            "owner": model.owner,
            "description": model.description,
            "tags": dict(model.tags),
            "created_at": model.created_at,
        }
        added = self._session.scalar(
            dialect.insert(ModelRow).values(values).on_conflict_do_nothing().returning(ModelRow.name)
        )
        self._session.execute(select(ModelRow.name).where(ModelRow.name == model.name).with_for_update())
        return added is not None

    def update_model(
        self, name: str, *, owner: str | None, description: str | None, tags: dict[str, str] | None
    ) -> Model:
        """None keeps what there is. Raises NotFound."""
        row = self._model_row(name)
        row.owner = row.owner if owner is None else owner
        row.description = row.description if description is None else description
        row.tags = row.tags if tags is None else tags
        self._session.flush()
        return _model(row)

    def model(self, name: str) -> Model:
        """Raises NotFound."""
        return _model(self._model_row(name))

    def models(self, *, after: str = "", limit: int | None = None) -> tuple[Model, ...]:
        """By name; `after` continues a page."""
        # The database's own collation may put "b" before "A", or take two names for equal.
        binary = "BINARY" if self._session.get_bind().dialect.name == "sqlite" else "C"
        name = ModelRow.name.collate(binary)
        rows = self._session.scalars(select(ModelRow).where(name > after).order_by(name).limit(limit))
        return tuple(_model(row) for row in rows)

    # versions

    def add_version(self, version: Version) -> None:
        """The caller holds the model's row (`ensure_model`) and has seen that the number is free."""
        self._session.add(
            VersionRow(
                model=version.model,
                number=version.number,
                artifact=version.artifact,
                manifest=version.manifest.to_json(),
                inspection=version.inspection.to_json(),
                source=version.source,
                registered_by=version.registered_by,
                registered_at=version.registered_at,
                same_bytes_as=list(version.same_bytes_as),
                config=version.config,
            )
        )
        self._session.flush()
        rows = [{"model": version.model, "number": version.number, "sha256": sha} for sha in sorted(blobs_of(version))]
        if rows:
            self._session.execute(insert(VersionBlobRow), rows)

    def find_version(self, model: str, number: int) -> Version | None:
        row = self._session.get(VersionRow, (model, number))
        return None if row is None else _version(row)

    def version(self, model: str, number: int) -> Version:
        """Raises NotFound."""
        found = self.find_version(model, number)
        if found is None:
            raise NotFound(f"there is no version {number} of {model!r}", hint=f"tritonctl model versions {model}")
        return found

    def numbered(self, model: str, numbers: Collection[int]) -> dict[int, Version]:
        """Those versions, in one query. Raises NotFound when one is missing."""
        query = select(VersionRow).where(VersionRow.model == model, VersionRow.number.in_(numbers))
        found = {row.number: _version(row) for row in self._session.scalars(query)} if numbers else {}
        for number in sorted(set(numbers) - found.keys()):
            raise NotFound(f"there is no version {number} of {model!r}", hint=f"tritonctl model versions {model}")
        return found

    def versions(self, model: str, *, before: int | None = None, limit: int | None = None) -> tuple[Version, ...]:
        """The highest number first; `before` continues a page. Empty for an unknown model."""
        query = select(VersionRow).where(VersionRow.model == model).order_by(VersionRow.number.desc()).limit(limit)
        if before is not None:
            query = query.where(VersionRow.number < before)
        return tuple(_version(row) for row in self._session.scalars(query))

    def highest_number(self, model: str) -> int:
        """0 when there is no version."""
        return self._session.scalar(select(func.max(VersionRow.number)).where(VersionRow.model == model)) or 0

    def numbers_of(self, model: str, artifact: str) -> tuple[int, ...]:
        """The versions of the model that have these bytes, lowest first."""
        query = select(VersionRow.number).where(VersionRow.model == model, VersionRow.artifact == artifact)
        return tuple(self._session.scalars(query.order_by(VersionRow.number)))

    def referenced(self, blobs: Collection[str] | None = None) -> frozenset[str]:
        """Those of `blobs`, or all, that some version, plan or revision needs."""
        found: set[str] = set()
        for row in (VersionBlobRow, BesideBlobRow):
            query = select(row.sha256).distinct()
            found.update(self._session.scalars(query if blobs is None else query.where(row.sha256.in_(blobs))))
        return frozenset(found)

    def keep_beside(self, model: str, beside: Manifest) -> None:
        """These blobs are needed from now on: a plan of the model has them beside its config."""
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        rows = [{"model": model, "sha256": sha256} for sha256 in sorted({entry.sha256 for entry in beside.files})]
        if rows:
            self._session.execute(dialect.insert(BesideBlobRow).values(rows).on_conflict_do_nothing())

    # objectives

    def set_objective(self, objective: Objective) -> Objective | None:
        """Add or replace the one of this name; the one that was replaced."""
        row = self._session.get(ObjectiveRow, (objective.model, objective.name))
        before = None if row is None else _objective(row)
        self._session.merge(ObjectiveRow(**{name: getattr(objective, name) for name in objective.__dataclass_fields__}))
        self._session.flush()
        return before

    def remove_objective(self, model: str, name: str) -> Objective:
        """Raises NotFound."""
        row = self._session.get(ObjectiveRow, (model, name))
        if row is None:
            raise NotFound(
                f"the model {model!r} has no objective {name!r}", hint=f"tritonctl model objective list {model}"
            )
        self._session.execute(delete(ObjectiveRow).where(ObjectiveRow.model == model, ObjectiveRow.name == name))
        return _objective(row)

    def objectives(self, model: str) -> tuple[Objective, ...]:
        rows = self._session.scalars(select(ObjectiveRow).where(ObjectiveRow.model == model))
        return tuple(sorted((_objective(row) for row in rows), key=lambda objective: objective.name))

    def _model_row(self, name: str) -> ModelRow:
        row = self._session.get(ModelRow, name)
        if row is None:
            raise NotFound(f"there is no model {name!r}", hint="tritonctl model list")
        return row


def blobs_of(version: Version) -> frozenset[str]:
    """Every blob that the version needs."""
    golden = version.inspection.golden
    return frozenset(entry.sha256 for entry in version.manifest.files) | ({golden.blob} if golden else frozenset())


def _model(row: ModelRow) -> Model:
    return Model(row.name, row.owner, row.description, tuple(sorted(row.tags.items())), row.created_at)


def _version(row: VersionRow) -> Version:
    return Version(
        model=row.model,
        number=row.number,
        manifest=Manifest.from_json(row.manifest),
        inspection=Inspection.from_json(row.inspection),
        source=row.source,
        registered_by=row.registered_by,
        registered_at=row.registered_at,
        same_bytes_as=tuple(row.same_bytes_as),
        config=row.config,
    )


def _objective(row: ObjectiveRow) -> Objective:
    return Objective(**{name: getattr(row, name) for name in Objective.__dataclass_fields__})
