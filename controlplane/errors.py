# Every error the control plane raises on purpose: one tree, each class with a stable code.
"""The tree (a test compares this drawing with the classes)::

ControlPlaneError
├── InvalidInput
│   ├── NameInvalid
│   ├── ConfigInvalid
│   ├── ConfigPathInvalid
│   ├── ArtifactInvalid
│   ├── ModelInvalid
│   ├── PolicyInvalid
│   ├── SweepInvalid
│   ├── CapsuleInvalid
│   ├── CursorInvalid
│   ├── SettingsInvalid
│   ├── TooLarge
│   └── MethodNotAllowed
├── NotFound
├── Conflict
│   ├── AlreadyExists
│   ├── VersionImmutable
│   ├── PreconditionFailed
│   ├── IdempotencyMismatch
│   ├── TransitionIllegal
│   ├── LeaseLost
│   └── ChangeBlocked
├── AccessDenied
│   ├── Unauthenticated
│   └── PermissionDenied
├── IntegrityError
│   ├── AuditBroken
│   ├── CheckpointMismatch
│   └── ArtifactCorrupt
├── ServerError
│   ├── ServerUnreachable
│   ├── ServerRefused
│   ├── LoadFailed
│   ├── LoadUnknown
│   ├── InferenceFailed
│   └── RepositoryFailed
├── VerificationFailed
├── RuntimeUnavailable
├── DatabaseNotReady
├── OperationTimedOut
│   └── DatabaseBusy
└── DemoFailed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

Detail = str | int | bool | None | list["Detail"] | dict[str, "Detail"]


class ControlPlaneError(Exception):
    """What went wrong, with which value, and what to do next.

    `code` is stable and is what programs branch on; the text is for people and may change. `status` is the HTTP status
    and `exit_code` the exit status of the command line. `hint` is the next command or action. `details` is
    machine-readable, JSON only.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Detail] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Detail] = dict(details or {})


class InvalidInput(ControlPlaneError):
    code = "input.invalid"
    status = 422
    exit_code = 2


class NameInvalid(InvalidInput):
    code = "name.invalid"


class ConfigInvalid(InvalidInput):
    code = "config.invalid"


class ConfigPathInvalid(InvalidInput):
    code = "config.path_invalid"


class ArtifactInvalid(InvalidInput):
    """The files cannot be an artifact: too large, missing or escaping external data, unreadable."""

    code = "artifact.invalid"


class ModelInvalid(InvalidInput):
    """The files are an artifact, but not a model that can be served: checker, shape inference or session refused it."""

    code = "model.invalid"


class PolicyInvalid(InvalidInput):
    code = "policy.invalid"


class SweepInvalid(InvalidInput):
    """The spec of a sweep cannot be read, or asks for what cannot be measured."""

    code = "sweep.invalid"


class CapsuleInvalid(InvalidInput):
    """The file is no capsule of a sweep, or not whole, or its digests do not check out."""

    code = "capsule.invalid"


class CursorInvalid(InvalidInput):
    code = "cursor.invalid"


class SettingsInvalid(InvalidInput):
    code = "settings.invalid"


class TooLarge(InvalidInput):
    code = "input.too_large"
    status = 413


class MethodNotAllowed(InvalidInput):
    code = "input.method_not_allowed"
    status = 405


class NotFound(ControlPlaneError):
    code = "not_found"
    status = 404
    exit_code = 4


class Conflict(ControlPlaneError):
    code = "conflict"
    status = 409
    exit_code = 5


class AlreadyExists(Conflict):
    code = "already_exists"


class VersionImmutable(Conflict):
    """The version number is taken by other bytes."""

    code = "version.immutable"


class PreconditionFailed(Conflict):
    """If-Match named a state that is no longer the current one."""

    code = "precondition.failed"
    status = 412


class IdempotencyMismatch(Conflict):
    """The Idempotency-Key was used before with another body."""

    code = "idempotency.mismatch"
    status = 422


class TransitionIllegal(Conflict):
    """The change is not in a state from which this is possible."""

    code = "change.transition_illegal"


class LeaseLost(Conflict):
    """Another worker holds the deployment now: nothing was done."""

    code = "lease.lost"


class ChangeBlocked(Conflict):
    """The change may not be applied now; `details["blockers"]` lists code and text of every reason."""

    code = "change.blocked"
    exit_code = 6


class AccessDenied(ControlPlaneError):
    code = "access.denied"
    status = 403
    exit_code = 3


class Unauthenticated(AccessDenied):
    code = "access.unauthenticated"
    status = 401


class PermissionDenied(AccessDenied):
    code = "access.permission_denied"


class IntegrityError(ControlPlaneError):
    """Stored bytes or history are not what they were."""

    code = "integrity.broken"
    exit_code = 8


class AuditBroken(IntegrityError):
    code = "audit.broken"


class CheckpointMismatch(IntegrityError):
    """The log contradicts a checkpoint that this client had seen."""

    code = "audit.checkpoint_mismatch"


class ArtifactCorrupt(IntegrityError):
    code = "artifact.corrupt"


class ServerError(ControlPlaneError):
    """A Triton server did not do what was asked."""

    code = "server.error"
    status = 502
    exit_code = 7


class ServerUnreachable(ServerError):
    code = "server.unreachable"


class ServerRefused(ServerError):
    """The server answered, and refused: wrong key, control mode or address."""

    code = "server.refused"


class LoadFailed(ServerError):
    """Triton said that the load failed; what served before serves on."""

    code = "server.load_failed"


class LoadUnknown(ServerError):
    """The load passed its deadline; Triton goes on with it, so its outcome is not known."""

    code = "server.load_unknown"


class InferenceFailed(ServerError):
    code = "server.inference_failed"


class RepositoryFailed(ServerError):
    """The disk of the model repository refused: full, read-only, gone or not permitted."""

    code = "server.repository_failed"


class VerificationFailed(ControlPlaneError):
    code = "verification.failed"
    exit_code = 7


class RuntimeUnavailable(ControlPlaneError):
    """There is no embedded Triton to run, or it did not come up."""

    code = "runtime.unavailable"
    exit_code = 9


class DatabaseNotReady(ControlPlaneError):
    """The database is missing or has another schema version; the hint is the command that mends it."""

    code = "database.not_ready"
    status = 503
    exit_code = 9


class OperationTimedOut(ControlPlaneError):
    """What was waited for did not happen in time; it may still."""

    code = "operation.timed_out"
    status = 504
    exit_code = 10


class DatabaseBusy(OperationTimedOut):
    """Another process held the database for longer than one is waited for; nothing was written."""

    code = "database.busy"


class DemoFailed(ControlPlaneError):
    """A step of the demo did not end as the story tells it."""

    code = "demo.failed"
