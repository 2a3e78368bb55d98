# Sweeps with their leases, their trials and measurements, and fingerprints by digest.
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import (
    CursorResult,
    Executable,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.canonical import JsonObject, digest, digest_bytes
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweeps import ACTIVE, Sweep, SweepState, Taken, Trial, check_transition
from controlplane.errors import Conflict, LeaseLost, NotFound
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


class SweepRow(Base):
    __tablename__ = "sweeps"
    __table_args__ = (Index(None, "model", "state"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(100))
    spec: Mapped[JsonObject] = mapped_column(CanonicalJson)
    spec_digest: Mapped[str] = mapped_column(String(71))
    space: Mapped[JsonObject] = mapped_column(CanonicalJson)
    load: Mapped[JsonObject] = mapped_column(CanonicalJson)
    plan: Mapped[JsonObject] = mapped_column(CanonicalJson)
    objectives: Mapped[list[JsonObject]] = mapped_column(CanonicalJson)
    state: Mapped[str] = mapped_column(String(20), index=True)
    started_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    environment: Mapped[str | None] = mapped_column(String(100))
    base_revision: Mapped[int | None]
    bench: Mapped[str] = mapped_column(String(500))
    began_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progress: Mapped[JsonObject] = mapped_column(CanonicalJson)
    message: Mapped[str] = mapped_column(Text)
    answer: Mapped[JsonObject | None] = mapped_column(CanonicalJson)
    evidence: Mapped[str | None] = mapped_column(String(71))
    lease_token: Mapped[int]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class TrialRow(Base):
    __tablename__ = "sweep_trials"
    __table_args__ = (ForeignKeyConstraint(["sweep_id"], ["sweeps.id"]), UniqueConstraint("sweep_id", "candidate"))
    sweep_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    candidate: Mapped[str] = mapped_column(String(71))
    version: Mapped[int]
    artifact: Mapped[str] = mapped_column(String(71))
    config: Mapped[JsonObject | None] = mapped_column(CanonicalJson)
    config_digest: Mapped[str] = mapped_column(String(71))
    parameters: Mapped[JsonObject] = mapped_column(CanonicalJson)
    base: Mapped[bool]
    refused: Mapped[list[str]] = mapped_column(CanonicalJson)
    failure: Mapped[str] = mapped_column(Text)
    log: Mapped[str] = mapped_column(Text)
    fates: Mapped[list[JsonObject]] = mapped_column(CanonicalJson)


class MeasurementRow(Base):
    """`content` is the measurement's own JSON; the other columns are what rows are found and counted by."""

    __tablename__ = "sweep_measurements"
    __table_args__ = (ForeignKeyConstraint(["sweep_id"], ["sweeps.id"]),)
    sweep_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    candidate: Mapped[str] = mapped_column(String(71))
    claim: Mapped[int]
    content: Mapped[JsonObject] = mapped_column(CanonicalJson)


class FingerprintRow(Base):
    __tablename__ = "fingerprints"
    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    content: Mapped[JsonObject] = mapped_column(CanonicalJson)


class SweepStore:
    """Works inside the caller's transaction and never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # sweeps

    def add(self, sweep: Sweep, trials: Iterable[Trial]) -> Sweep:
        """Insert both; the returned sweep has its id, which the trials get."""
        row = SweepRow(
            **{name: getattr(sweep, name) for name in Sweep.__dataclass_fields__ if name not in {"id", "objectives"}},
            objectives=list(sweep.objectives),
            lease_token=0,
        )
        self._session.add(row)
        self._session.flush()
        self.add_trials(row.id, trials)
        return replace(sweep, id=row.id)

    def get(self, sweep: int, *, lock: bool = False) -> Sweep:
        """Locked, no other transaction changes it before this one ends. Raises NotFound."""
        row = self._session.get(SweepRow, sweep, populate_existing=True, with_for_update=lock or None)
        if row is None:
            raise NotFound(f"there is no sweep {sweep}", hint="tritonctl sweep list")
        return _sweep(row)

    def list(
        self,
        *,
        model: str | None = None,
        state: SweepState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[Sweep, ...]:
        """The newest first; `before` continues a page."""
        query = select(SweepRow).order_by(SweepRow.id.desc()).limit(limit)
        if model is not None:
            query = query.where(SweepRow.model == model)
        if state is not None:
            query = query.where(SweepRow.state == state.value)
        if before is not None:
            query = query.where(SweepRow.id < before)
        return tuple(_sweep(row) for row in self._session.scalars(query))

    def open_plans(self) -> tuple[JsonObject, ...]:
        """Of all that are not finished: each may go on."""
        return tuple(self._session.scalars(select(SweepRow.plan).where(SweepRow.state != SweepState.FINISHED.value)))

    def move(self, sweep: int, new: SweepState, **values: object) -> Sweep:
        """The only way to change a state. Whoever measures loses the lease, unless the sweep goes on running. Raises
        TransitionIllegal, or Conflict when another transaction moved it."""
        before = self.get(sweep)
        check_transition(sweep, before.state, new)
        if "message" in values:
            values["message"] = _kept(str(values["message"]))
        if new is not SweepState.RUNNING:
            values = {
                **values,
                "lease_token": SweepRow.lease_token + 1,
                "lease_owner": None,
                "lease_expires_at": None,
            }
        statement = update(SweepRow).where(SweepRow.id == sweep, SweepRow.state == before.state.value)
        if not self._changed(statement.values(state=new.value, **values)):
            raise Conflict(f"sweep {sweep} was moved by someone else", hint=f"tritonctl sweep show {sweep}")
        return self.get(sweep)

    # the lease

    def waits(self, now: datetime) -> bool:
        """Whether any is queued or running under no lease. A claim may still find its bench taken."""
        query = select(SweepRow.id).where(
            SweepRow.state.in_([state.value for state in ACTIVE]),
            or_(SweepRow.lease_expires_at.is_(None), SweepRow.lease_expires_at < now),
        )
        return self._session.scalars(query.limit(1)).first() is not None

    def claim(self, owner: str, now: datetime, seconds: float) -> tuple[int, int] | None:
        """Take the oldest sweep that is queued, or running under a lease that is free or over: its id and the lease's token. A
        bench measures one sweep at a time, so one whose bench another sweep holds waits."""
        active = [state.value for state in ACTIVE]
        rows = list(
            self._session.scalars(
                select(SweepRow).where(SweepRow.state.in_(active)).order_by(SweepRow.id).with_for_update(),
                execution_options={"populate_existing": True},
            )
        )
        held = {row.id for row in rows if row.lease_expires_at is not None and row.lease_expires_at >= now}
        busy = {_place(row.bench) for row in rows if row.id in held}
        free = next((row for row in rows if row.id not in held and _place(row.bench) not in busy), None)
        if free is None:
            return None
        free.lease_token += 1
        free.lease_owner = owner
        free.lease_expires_at = now + timedelta(seconds=seconds)
        free.state = SweepState.RUNNING.value
        if free.began_at is None or not self.measured(free.id):
            free.began_at = now  # whoever claimed it before left nothing, and may have left long ago
        self._session.flush()
        return free.id, free.lease_token

    def guard(self, sweep: int, token: int, **values: object) -> None:
        """Change the sweep's row if the lease is still the caller's; raises LeaseLost otherwise."""
        statement = update(SweepRow).where(SweepRow.id == sweep, SweepRow.lease_token == token)
        if not self._changed(statement.values(**(values or {"lease_token": token}))):
            raise LeaseLost(f"sweep {sweep} was taken over or stopped", hint=f"tritonctl sweep show {sweep}")

    def token(self, sweep: int) -> int:
        return self._session.scalars(select(SweepRow.lease_token).where(SweepRow.id == sweep)).one()

    # trials

    def add_trials(self, sweep: int, trials: Iterable[Trial]) -> None:
        for trial in trials:
            values = {name: getattr(trial, name) for name in Trial.__dataclass_fields__ if name != "sweep"}
            lists = {"refused": list(trial.refused), "fates": list(trial.fates)}
            self._session.add(TrialRow(sweep_id=sweep, **{**values, **lists}))
        self._session.flush()

    def trials(self, sweep: int) -> tuple[Trial, ...]:
        """By number."""
        rows = self._session.scalars(select(TrialRow).where(TrialRow.sweep_id == sweep).order_by(TrialRow.number))
        return tuple(_trial(row) for row in rows)

    def trial(self, sweep: int, number: int) -> Trial:
        """Raises NotFound."""
        row = self._session.get(TrialRow, (sweep, number), populate_existing=True)
        if row is None:
            self.get(sweep)
            raise NotFound(f"sweep {sweep} has no trial {number}", hint=f"tritonctl sweep show {sweep}")
        return _trial(row)

    def set_failure(self, sweep: int, candidate: str, failure: str, log: str = "") -> None:
        """What is known already stays."""
        statement = update(TrialRow).where(TrialRow.sweep_id == sweep, TrialRow.candidate == candidate)
        self._changed(statement.where(TrialRow.failure == "").values(failure=_kept(failure)))
        if log:
            self._changed(statement.where(TrialRow.log == "").values(log=_kept(log)))

    def set_fates(self, sweep: int, number: int, fates: Sequence[JsonObject]) -> None:
        statement = update(TrialRow).where(TrialRow.sweep_id == sweep, TrialRow.number == number)
        self._changed(statement.values(fates=list(fates)))

    # measurements and fingerprints

    def take(self, measurement: Measurement, claim: int) -> bool:
        """Keep it. False when the block of its round and place was measured before: then nothing changes."""
        values = {
            "sweep_id": measurement.sweep,
            "round": measurement.round,
            "place": measurement.order.place,
            "candidate": measurement.order.candidate,
            "claim": claim,
            "content": measurement.to_json(),
        }
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        statement = dialect.insert(MeasurementRow).values(values).on_conflict_do_nothing()
        return self._session.scalar(statement.returning(MeasurementRow.place)) is not None

    def measurements(
        self, sweep: int, *, candidate: str | None = None, skip: int = 0, limit: int | None = None
    ) -> tuple[Taken, ...]:
        """By round and place, after so many that are skipped."""
        query = select(MeasurementRow).where(MeasurementRow.sweep_id == sweep)
        if candidate is not None:
            query = query.where(MeasurementRow.candidate == candidate)
        rows = self._session.scalars(
            query.order_by(MeasurementRow.round, MeasurementRow.place).offset(skip).limit(limit)
        )
        return tuple(Taken(Measurement.from_json(row.content), row.claim) for row in rows)

    def measurement_digests(self, sweep: int) -> Sequence[str]:
        """Of all, by round and place, taken of the bytes as they are kept: nothing is read out of ten thousand histograms."""
        query = select(type_coerce(MeasurementRow.content, Text)).where(MeasurementRow.sweep_id == sweep)
        rows = self._session.scalars(query.order_by(MeasurementRow.round, MeasurementRow.place))
        return [digest_bytes(content.encode()) for content in rows]

    def measured(self, sweep: int) -> int:
        """How many blocks there are."""
        query = select(func.count()).select_from(MeasurementRow).where(MeasurementRow.sweep_id == sweep)
        return self._session.scalar(query) or 0

    def keep_fingerprint(self, fingerprint: Fingerprint) -> None:
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        values = {"digest": fingerprint.digest, "content": fingerprint.to_json()}
        self._session.execute(dialect.insert(FingerprintRow).values(values).on_conflict_do_nothing())

    def fingerprints(self, digests: Iterable[str]) -> dict[str, Fingerprint]:
        """Those that are kept, and are what their digest says."""
        rows = self._session.scalars(select(FingerprintRow).where(FingerprintRow.digest.in_(set(digests))))
        return {row.digest: Fingerprint.from_json(row.content) for row in rows if digest(row.content) == row.digest}

    def _changed(self, statement: Executable) -> bool:
        options = {"synchronize_session": False}
        result = cast("CursorResult[object]", self._session.execute(statement, execution_options=options))
        return bool(result.rowcount == 1)


def _place(bench: str) -> str:
    """The same for the same bench, whichever way this host is called in its address."""
    return re.sub(r"^(\w[\w+]*://)?(localhost|\[::1\]):", r"\g<1>127.0.0.1:", bench.lower())


def _kept(text: str) -> str:
    """What a server or a model wrote may have bytes in it that PostgreSQL takes in no text."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _sweep(row: SweepRow) -> Sweep:
    values = {name: getattr(row, name) for name in Sweep.__dataclass_fields__}
    return Sweep(**{**values, "objectives": tuple(row.objectives), "state": SweepState(row.state)})


def _trial(row: TrialRow) -> Trial:
    values = {name: getattr(row, name) for name in Trial.__dataclass_fields__ if name != "sweep"}
    return Trial(sweep=row.sweep_id, **{**values, "refused": tuple(row.refused), "fates": tuple(row.fates)})
