# The one error of the SDK: what the API answered, with its stable code.
from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """`code` is what programs branch on; `status` the HTTP status, 0 when no answer came; `exit_code` the exit status
    that the command line ends with; `hint` the next command or action."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 0,
        exit_code: int = 1,
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.exit_code = exit_code
        self.hint = hint
        self.details = dict(details or {})


def unreachable(message: str, hint: str) -> ApiError:
    return ApiError(message, code="api.unreachable", exit_code=9, hint=hint)
