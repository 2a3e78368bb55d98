# Who may do what: principals, roles, and the permission table as data.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PrincipalKind(StrEnum):
    PERSON = "person"
    SERVICE_ACCOUNT = "service_account"  # proposes, never approves
    SYSTEM = "system"  # the control plane itself: the worker, the command line on its own host


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something, as the audit log names it."""

    name: str
    kind: PrincipalKind


SYSTEM = Actor("system", PrincipalKind.SYSTEM)


class Permission(StrEnum):
    CATALOG_READ = "catalog.read"
    MODEL_REGISTER = "model.register"
    OBJECTIVE_SET = "objective.set"
    CATALOG_PRUNE = "catalog.prune"
    ENVIRONMENT_READ = "environment.read"
    ENVIRONMENT_MANAGE = "environment.manage"
    SERVER_MANAGE = "server.manage"
    POLICY_SET = "policy.set"
    CHANGE_READ = "change.read"
    CHANGE_PROPOSE = "change.propose"
    CHANGE_APPROVE = "change.approve"  # and reject
    CHANGE_APPLY = "change.apply"
    CHANGE_WITHDRAW = "change.withdraw"
    CHANGE_BREAK_GLASS = "change.break_glass"
    REVIEW_CLOSE = "review.close"
    CHANGE_ROLLBACK = "change.rollback"
    DEPLOYMENT_RECONCILE = "deployment.reconcile"
    SWEEP_READ = "sweep.read"
    SWEEP_RUN = "sweep.run"  # plan, start, cancel, resume
    AUDIT_READ = "audit.read"
    AUDIT_CHECKPOINT = "audit.checkpoint"
    ACCESS_MANAGE = "access.manage"
    WEBHOOK_MANAGE = "webhook.manage"  # and see: their addresses may be secrets


_EVERYONE = frozenset(Role)
_OPERATING = frozenset({Role.OPERATOR, Role.ADMIN})
_APPROVING = frozenset({Role.APPROVER, Role.ADMIN})
_ADMIN = frozenset({Role.ADMIN})

PERMISSIONS: Mapping[Permission, frozenset[Role]] = {
    Permission.CATALOG_READ: _EVERYONE,
    Permission.MODEL_REGISTER: _OPERATING,
    Permission.OBJECTIVE_SET: _OPERATING,
    Permission.CATALOG_PRUNE: _ADMIN,
    Permission.ENVIRONMENT_READ: _EVERYONE,
    Permission.ENVIRONMENT_MANAGE: _ADMIN,
    Permission.SERVER_MANAGE: _ADMIN,
    Permission.POLICY_SET: _ADMIN,
    Permission.CHANGE_READ: _EVERYONE,
    Permission.CHANGE_PROPOSE: _OPERATING,
    Permission.CHANGE_APPROVE: _APPROVING,
    Permission.CHANGE_APPLY: _OPERATING,
    Permission.CHANGE_WITHDRAW: _OPERATING,
    Permission.CHANGE_BREAK_GLASS: _ADMIN,
    Permission.REVIEW_CLOSE: _APPROVING,
    Permission.CHANGE_ROLLBACK: frozenset({Role.OPERATOR, Role.APPROVER, Role.ADMIN}),
    Permission.DEPLOYMENT_RECONCILE: _OPERATING,
    Permission.SWEEP_READ: _EVERYONE,
    Permission.SWEEP_RUN: _OPERATING,
    Permission.AUDIT_READ: _EVERYONE,
    Permission.AUDIT_CHECKPOINT: _ADMIN,
    Permission.ACCESS_MANAGE: _ADMIN,
    Permission.WEBHOOK_MANAGE: _ADMIN,
}

# What a service account may never do, whatever its roles: consent is a person's.
_PERSONS_ONLY = frozenset(
    {Permission.CHANGE_APPROVE, Permission.REVIEW_CLOSE, Permission.CHANGE_BREAK_GLASS, Permission.ACCESS_MANAGE}
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone whom tokens can be issued to. A disabled one may do nothing and stays on record."""

    id: int
    name: str
    kind: PrincipalKind
    roles: frozenset[Role]
    created_at: datetime
    disabled_at: datetime | None = None

    @property
    def active(self) -> bool:
        return self.disabled_at is None

    @property
    def actor(self) -> Actor:
        return Actor(self.name, self.kind)

    def may(self, permission: Permission) -> bool:
        if not self.active or (self.kind is not PrincipalKind.PERSON and permission in _PERSONS_ONLY):
            return False
        return not self.roles.isdisjoint(PERMISSIONS[permission])


def why_not(principal: Principal, permission: Permission) -> tuple[str, str]:
    """Why `principal`, who may not, may not, with the roles that would do; and who can help."""
    name, denied = principal.name, f"{principal.name} may not {permission.value}"
    if not principal.active:
        return f"{denied}: it is disabled", f"ask an admin: tritonctl principal enable {name}"
    if principal.kind is not PrincipalKind.PERSON and permission in _PERSONS_ONLY:
        return f"{denied}: only people may, and it is a service account", "let a person do it"
    roles = [role.value for role in Role if role in PERMISSIONS[permission]]  # the weakest first
    held = ", ".join(sorted(principal.roles)) or "no role"
    return (
        f"{denied}: that takes the role {' or '.join(roles)}, and it has {held}",
        f"ask an admin: tritonctl principal grant {name} {roles[0]}; or act as somebody else: --context NAME",
    )


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of an issued token; its secret is not."""

    id: int
    principal: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None

    def valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
