# Cursors of lists: opaque to callers, so that what stands behind them may change.
from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Query

from controlplane.errors import CursorInvalid

_DIGITS = 18
Limit = Annotated[int, Query(ge=1, le=500)]


def cursor(last: int | str) -> str:
    """Continues after `last`, the key of a page's last item."""
    return base64.urlsafe_b64encode(str(last).encode()).decode().rstrip("=")


def key(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        raise _invalid(text) from None
    if "\0" in found:
        raise _invalid(text)
    return found


def after(text: str | None) -> int | None:
    """The number that `cursor` was made of."""
    found = key(text)
    if found is None:
        return None
    if not found.isdecimal() or len(found) > _DIGITS:
        raise _invalid(str(text))
    return int(found)


def _invalid(text: str) -> CursorInvalid:
    return CursorInvalid(
        f"the cursor {text[:80]!r} is not one of ours", hint="send 'next' of the page before as it came"
    )
