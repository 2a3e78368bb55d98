# Where a trial stands in the space: the place of each of its values among those of the dimension. Pure.
from __future__ import annotations

from decimal import Decimal, InvalidOperation

from controlplane.domain.canonical import Json
from controlplane.domain.sweep_dimensions import Dimension
from controlplane.domain.sweep_space import ConfigEditor, Space, Subject, active, apply
from controlplane.domain.sweeps import Trial

VERSION = "version"


def places(one: Trial, space: Space, subject: Subject, editor: ConfigEditor) -> dict[str, int]:
    """Among `ordered` values. A base config has no parameters; where it is in the space, they are those that change nothing.
    Empty for a version that the space has not."""
    if one.version not in space.versions:
        return {}
    found = {VERSION: space.versions.index(one.version)}
    base = subject.bases[one.version]
    for dimension in space.dimensions:
        values = ordered(dimension)
        if dimension.name in one.parameters:
            value = one.parameters[dimension.name]
            at = next((place for place, other in enumerate(values) if _same(value, other)), None)
        elif one.base and active(dimension, base):
            alike = (
                place for place, other in enumerate(values) if apply(base, dimension.name, other, editor)[0] == base
            )
            at = next(alike, None)
        else:
            at = None
        if at is not None:
            found[dimension.name] = at
    return found


def ordered(dimension: Dimension) -> tuple[Json, ...]:
    """Numbers by size: what lies near a good value is taken for good as well."""
    found = numbers(dimension)
    if found is None:
        return dimension.values
    return tuple(value for _, value in sorted(zip(found, dimension.values, strict=True), key=lambda pair: pair[0]))


def numbers(dimension: Dimension) -> list[Decimal] | None:
    """None where a value is no number, or where so few have no order to speak of."""
    found = []
    for value in dimension.values:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return None
        try:
            found.append(Decimal(value))
        except InvalidOperation:
            return None
    return found if len(found) > 2 and dimension.name != VERSION and all(map(Decimal.is_finite, found)) else None


def _same(one: Json, other: Json) -> bool:
    return type(one) is type(other) and one == other
