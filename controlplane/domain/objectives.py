# What an objective, and any short text that a user writes, may be.
from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from controlplane.domain.catalog import Objective
from controlplane.domain.names import check_name
from controlplane.errors import InvalidInput

_METRIC = re.compile(r"[a-z][a-z0-9_]{0,99}")
_PERCENTILE = re.compile(r"p([0-9]{1,2}(\.[0-9]{1,3})?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LARGEST = Decimal("1e15")
DIRECTIONS = ("at_most", "at_least")


def check_objective(objective: Objective) -> Objective:
    """Return it, or raise InvalidInput. A duration (a metric in `_ms`) needs a percentile: a mean says nothing of it."""
    check_name(objective.name, "objective")
    if _METRIC.fullmatch(objective.metric) is None:
        raise InvalidInput(
            f"the metric {objective.metric[:100]!r} is not a name such as latency_ms or accuracy",
            hint="use lower case letters, digits and _",
        )
    percentile = _PERCENTILE.fullmatch(objective.qualifier)
    if percentile is not None and float(percentile[1]) == 0:
        raise InvalidInput("p0 is not a percentile", hint="use p50, p99, p99.9, …")
    if objective.metric.endswith("_ms") and percentile is None:
        raise InvalidInput(
            f"{objective.metric} needs a percentile, not {objective.qualifier[:100]!r}", hint="use p50, p99, p99.9, …"
        )
    if objective.qualifier and percentile is None:
        check_name(objective.qualifier, "cohort")
    if objective.direction not in DIRECTIONS:
        raise InvalidInput(
            f"the direction {objective.direction[:100]!r} is not known", hint=f"use {' or '.join(DIRECTIONS)}"
        )
    _check_decimal(objective.bound, "bound")
    if objective.weight is not None and _check_decimal(objective.weight, "weight") <= 0:
        raise InvalidInput(
            f"the weight {objective.weight} is not positive", hint="leave the weight out for a hard constraint"
        )
    if not check_text(objective.stakeholder, "stakeholder", 100):
        raise InvalidInput(
            "an objective names its stakeholder", hint="say who needs it: product, users, infrastructure, …"
        )
    return objective


def check_text(text: str, what: str, length: int, *, lines: bool = False) -> str:
    """Return `text`, or raise InvalidInput when it is longer than `length` or holds control characters; `lines` allows
    line ends and tabs."""
    if len(text) > length:
        raise InvalidInput(f"the {what} has {len(text)} characters, {length} are allowed")
    if _CONTROL.search(text.translate({9: None, 10: None, 13: None}) if lines else text):
        raise InvalidInput(f"the {what} {text[:60]!r} holds control characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"the {what} {text[:60]!r} is not valid Unicode") from None
    return text


def _check_decimal(text: str, what: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise InvalidInput(f"the {what} {text[:60]!r} is not a decimal number") from None
    if not number.is_finite() or len(text) > 100:
        raise InvalidInput(f"the {what} {text[:60]!r} is not a plain decimal number")
    if abs(number) > _LARGEST or 0 < abs(number) < 1 / _LARGEST:
        raise InvalidInput(
            f"the {what} {text[:60]!r} is not a number of this world", hint="nothing measured comes near it"
        )
    return number
