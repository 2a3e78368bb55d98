# Reading protobuf text with errors that say where, and what was probably meant.
from __future__ import annotations

import re

from google.protobuf import text_format
from google.protobuf.message import Message

from controlplane.errors import ConfigInvalid
from controlplane.triton.config_fields import unknown_field_hint

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POSITION = re.compile(r"\d+:\d+ : (?:'.*': )?", re.DOTALL)


def parse_into(message: Message, text: str, what: str, *, hint: str | None = None) -> None:
    """Merge `text` into `message`. Raises ConfigInvalid with line and column of `what`; the hint comes from the word that
    stands there, or is `hint`. Nesting is bounded by the schema, which has no recursive message."""
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        lines = text.split("\n")
        word = _WORD.match(lines[line - 1], column - 1) if line <= len(lines) else None
        raise ConfigInvalid(
            f"{what}, line {line}, column {column}: {_POSITION.sub('', str(error), count=1)[:300]}",
            hint=unknown_field_hint(word[0]) if word else hint,
            details={"line": line, "column": column},
        ) from None
