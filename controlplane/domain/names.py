# The one rule for names, because Triton passes them unquoted to a shell.
from __future__ import annotations

import re

from controlplane.errors import NameInvalid

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def check_name(name: str, what: str) -> str:
    """Return `name`, or raise NameInvalid; `what` says whose name it is ("model", "server", …)."""
    if _NAME.fullmatch(name) is None or ".." in name:
        raise NameInvalid(
            f"{what} name {name[:120]!r} is not allowed",
            hint="use 1 to 100 of A-Z a-z 0-9 _ . - ; begin with a letter, digit or underscore; no '..'",
            details={"name": name[:120], "what": what},
        )
    return name


def check_version(number: int) -> int:
    """Return `number`, or raise NameInvalid: Triton's version directories are positive integers without leading zero."""
    if not 1 <= number < 2**31:
        raise NameInvalid(f"version {number} is not allowed", hint="use a whole number from 1 to 2147483647")
    return number
