# People, a model with three versions, and an environment whose server nobody asks.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.domain.access import Principal, PrincipalKind, Role
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Inspection, Model, Version
from controlplane.domain.changes import ChangeState
from controlplane.domain.environments import Revision
from controlplane.errors import (
    ChangeBlocked,
)
from controlplane.services.access import AccessService
from controlplane.services.audit import AuditService
from controlplane.services.audit_verify import verify
from controlplane.services.change_views import ChangeView
from controlplane.services.changes import ChangeService
from controlplane.services.environments import EnvironmentService
from controlplane.services.planning import Proposal
from controlplane.storage.checkpoint_files import CheckpointFiles, ensure_signing_key
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import build_planner
from tests.store.clock import SteppingClock

ENV, MODEL = "production", "digits"
CONFIG: JsonObject = {"backend": "tensorrt", "max_batch_size": 8}


@dataclass
class House:
    """People, one model with three versions, and one environment whose server nobody asks."""

    storage: Storage
    clock: SteppingClock
    people: dict[str, Principal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.access = AccessService(self.storage, self.clock)
        self.environments = EnvironmentService(self.storage, self.access, self.clock)
        self.changes = ChangeService(self.storage, self.access, build_planner(self.storage), self.clock)

    def __getitem__(self, name: str) -> Principal:
        return self.people[name]

    def policy(self, **clauses: object) -> None:
        self.environments.set_policy(self["ada"], ENV, clauses, expected_number=None)  # type: ignore[arg-type]

    def propose(self, version: int = 1, *, by: str = "olga", **wish: object) -> ChangeView:
        config = {"config": CONFIG} if version == 1 else {}
        wished = Proposal(ENV, MODEL, "a reason", versions=(version,), **{**config, **wish})  # type: ignore[arg-type]
        return self.changes.propose(self[by], wished)

    def approve(self, view: ChangeView, *by: str) -> None:
        for name in by:
            self.changes.approve(self[name], view.request.id, view.plan.digest, "")

    def apply(self, view: ChangeView, *, by: str = "olga", break_glass: str | None = None) -> ChangeView:
        return self.changes.apply(self[by], view.request.id, break_glass=break_glass)

    def blocked(self, view: ChangeView, *, by: str = "olga", break_glass: str | None = None) -> list[str]:
        """The codes of what blocks it."""
        with pytest.raises(ChangeBlocked) as error:
            self.apply(view, by=by, break_glass=break_glass)
        found = error.value.details["blockers"]
        assert isinstance(found, list)
        return [str(blocker["code"]) for blocker in found if isinstance(blocker, dict)]

    def show(self, view: ChangeView) -> ChangeView:
        return self.changes.show(self["vera"], view.request.id)

    def record(self, view: ChangeView) -> None:
        """What the worker writes when a change went through."""
        with self.storage.write() as unit:
            deployment = unit.environments.deployment(ENV, MODEL)
            assert deployment is not None
            number = deployment.revision + 1
            unit.environments.guard(ENV, MODEL, deployment.lease_token, revision=number, active_change=None)
            unit.environments.add_revision(
                Revision(ENV, MODEL, number, view.plan.desired, view.request.id, self.clock.now(), ())
            )
            unit.changes.move(view.request.id, ChangeState.APPLIED)

    def deploy(self, version: int) -> None:
        view = self.propose(version)
        self.approve(view, "anna")
        self.record(self.apply(view))

    def actions(self, view: ChangeView) -> list[tuple[str, str]]:
        """Who did what to the change, the oldest first."""
        with self.storage.read() as unit:
            found = unit.audit.entries(subject=("change", str(view.request.id)))
        return [(entry.actor.name, entry.action) for entry in reversed(found)]


@contextmanager
def furnished(storage: Storage, clock: SteppingClock, tmp_path: Path) -> Iterator[House]:
    """The audit log of whatever a test did verifies at its end."""
    house = House(storage, clock)
    ada, _ = house.access.bootstrap("ada", None)
    house.people["ada"] = ada
    for name, role in (
        ("olga", Role.OPERATOR),
        ("otto", Role.OPERATOR),
        ("anna", Role.APPROVER),
        ("abel", Role.APPROVER),
        ("vera", Role.VIEWER),
    ):
        house.people[name] = house.access.create(ada, name, PrincipalKind.PERSON, [role])
    house.people["robot"] = house.access.create(
        ada, "robot", PrincipalKind.SERVICE_ACCOUNT, [Role.OPERATOR, Role.APPROVER]
    )
    with storage.write() as unit:
        unit.catalog.ensure_model(Model(MODEL, "olga", "", (), clock.now()))
        for number in (1, 2, 3):
            manifest = Manifest((FileEntry("model.plan", 1, f"sha256:{number:064x}"),))
            found = Inspection(None, None, "tensorrt")
            unit.catalog.add_version(Version(MODEL, number, manifest, found, "", "olga", clock.now()))
    house.environments.create(ada, ENV, "", {"approvals": 1})
    house.environments.add_server(ada, ENV, "remote", "127.0.0.1:1", "/nowhere/models")
    yield house
    signer = ensure_signing_key(tmp_path / "audit.key", "test")
    files = CheckpointFiles(tmp_path / "checkpoints")
    AuditService(storage, house.access, files, [signer.verifier], signer).sign()
    report = verify(storage.database, [signer.verifier], tmp_path / "checkpoints", one_owner=False)
    assert (report.findings, report.tail) == ((), 0)
