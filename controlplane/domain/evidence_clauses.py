# What a policy asks of the evidence behind a change: for which models, how old, from where.
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from fnmatch import fnmatchcase

from controlplane.domain.canonical import Json, JsonObject
from controlplane.errors import PolicyInvalid

EVIDENCE = "evidence"
"""What plans call the gate."""
SAME, ANY = "same", "any"
BLOCK, ACCEPT = "block", "accept"
_PATTERN = re.compile(r"[A-Za-z0-9_.*?-]{1,100}")
_TEXT = re.compile(r"(?P<models>[^:=,]+)(:(?P<rest>[a-z_]+=[^,=]{1,100}(,[a-z_]+=[^,=]{1,100})*))?")
_HOW = "write it as MODELS, and after it, where wanted, :max_age_days=30,fingerprint=same|any,inconclusive=block|accept"
_MOST = 20
_DAYS = 30


@dataclass(frozen=True, slots=True)
class EvidenceClause:
    """Changes of the models whose name is like `models` (`*` and `?`) carry a trial of a sweep that was measured no longer than
    `max_age_days` ago. `fingerprint`: `same`, the environment's servers are of the class that it was measured on, or `any`.
    `inconclusive` says what becomes of a change whose evidence cannot tell: it is blocked, or accepted."""

    models: str
    max_age_days: int = _DAYS
    fingerprint: str = SAME
    inconclusive: str = BLOCK

    def __post_init__(self) -> None:
        if _PATTERN.fullmatch(self.models) is None:
            raise PolicyInvalid(
                f"evidence for the models {self.models[:100]!r}",
                hint="a name in which * and ? stand for anything, such as digits*",
            )
        if not 1 <= self.max_age_days <= 3650:
            raise PolicyInvalid(f"evidence: max_age_days is {self.max_age_days}", hint="use 1 to 3650")
        for name, known in (("fingerprint", (SAME, ANY)), ("inconclusive", (BLOCK, ACCEPT))):
            if getattr(self, name) not in known:
                raise PolicyInvalid(
                    f"evidence: {name} is {getattr(self, name)[:100]}", hint=f"use {' or '.join(known)}"
                )

    def matches(self, model: str) -> bool:
        return fnmatchcase(model, self.models)

    @property
    def words(self) -> str:
        where = "measured on servers of the same class" if self.fingerprint == SAME else "measured anywhere"
        then = "blocks" if self.inconclusive == BLOCK else "is accepted"
        return f"a trial of a sweep, at most {self.max_age_days} days old, {where}; what cannot be told {then}"

    def __str__(self) -> str:
        """As `from_json` reads it."""
        return f"{self.models}:max_age_days={self.max_age_days},fingerprint={self.fingerprint},inconclusive={self.inconclusive}"

    def to_json(self) -> JsonObject:
        return {
            "models": self.models,
            "max_age_days": self.max_age_days,
            "fingerprint": self.fingerprint,
            "inconclusive": self.inconclusive,
        }

    @classmethod
    def from_json(cls, tree: Json) -> EvidenceClause:
        """Of an object, or of text as on the command line. Raises PolicyInvalid."""
        fields = _of_text(tree) if isinstance(tree, str) else tree
        if not isinstance(fields, Mapping) or "models" not in fields:
            raise PolicyInvalid(f"{str(tree)[:200]!r} does not say of what evidence is asked", hint=_HOW)
        unknown = sorted(fields.keys() - {field.name for field in dataclass_fields(cls)})
        if unknown:
            raise PolicyInvalid(f"evidence has no {unknown[0][:100]!r}", hint=_HOW)
        return cls(
            str(fields["models"]),
            _days(fields.get("max_age_days", _DAYS)),
            str(fields.get("fingerprint", SAME)),
            str(fields.get("inconclusive", BLOCK)),
        )


def clauses_from_json(tree: Json) -> tuple[EvidenceClause, ...]:
    """At most 20, each of its own models. Raises PolicyInvalid."""
    if not isinstance(tree, Sequence) or isinstance(tree, str):
        raise PolicyInvalid(f"evidence has the wrong type: {tree!r}", hint="a list, each item of which names models")
    clauses = tuple(EvidenceClause.from_json(item) for item in tree)
    patterns = [clause.models for clause in clauses]
    twice = next((pattern for pattern in patterns if patterns.count(pattern) > 1), None)
    if twice is not None:
        raise PolicyInvalid(f"evidence is asked twice of {twice!r}", hint="once for each pattern")
    if len(clauses) > _MOST:
        raise PolicyInvalid(f"evidence is asked of {len(clauses)} patterns", hint=f"at most {_MOST}")
    return clauses


def asked_of(model: str, clauses: Iterable[EvidenceClause]) -> EvidenceClause | None:
    """What all clauses that are about the model ask together: the strictest of each. None: nothing is asked of it."""
    found = [clause for clause in clauses if clause.matches(model)]
    if not found:
        return None
    return EvidenceClause(
        model,
        min(clause.max_age_days for clause in found),
        SAME if any(clause.fingerprint == SAME for clause in found) else ANY,
        BLOCK if any(clause.inconclusive == BLOCK for clause in found) else ACCEPT,
    )


def tightened(live: Iterable[EvidenceClause], bound: Iterable[EvidenceClause], model: str) -> tuple[str, ...]:
    """In words, what the live policy asks of the model's evidence that the one of its plan did not."""
    now, then = asked_of(model, live), asked_of(model, bound)
    if then is None:
        return () if now is None else (f"evidence is asked for: {now.words}",)
    if now is None or asked_of(model, (now, then)) == then:
        return ()
    return (f"evidence went from {then.words} to {now.words}",)


def _of_text(text: str) -> JsonObject | None:
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        return None
    fields: JsonObject = {"models": match["models"]}
    for part in (match["rest"] or "").split(","):
        name, _, value = part.partition("=")
        if name in fields:
            raise PolicyInvalid(f"evidence says {name} twice", hint=_HOW)
        if name:
            fields[name] = value
    return fields


def _days(value: Json) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 6:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyInvalid(f"evidence: max_age_days is {str(value)[:100]}", hint="whole days, such as 30")
    return value
