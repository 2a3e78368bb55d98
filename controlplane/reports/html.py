# HTML from Python: what is text is escaped, always.
from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """HTML that is finished. Everything else that goes into an element is text."""

    __slots__ = ()


Child = str | int | Markup | None | Iterable["Child"]
_VOID = frozenset({"meta", "br", "hr", "wbr"})


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """`class_` is written as class, `aria_label` as aria-label; True is an attribute without a value, None and False none."""
    said = "".join(
        f" {key.strip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value), quote=True)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{inside(*children)}</{name}>")


def inside(*children: Child) -> Markup:
    return Markup("".join(map(_written, children)))


def _written(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return html.escape(str(child), quote=False)
    return "".join(map(_written, child))
