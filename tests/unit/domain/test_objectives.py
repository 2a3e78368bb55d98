# What an objective may be.
from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.catalog import Objective
from controlplane.domain.objectives import check_objective
from controlplane.errors import InvalidInput

FAST = Objective("digits", "fast", "latency_ms", "p99", "at_most", "100", "product", None)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"qualifier": "p99.9"},
        {"weight": "0.25"},
        {"metric": "accuracy", "qualifier": "", "direction": "at_least", "bound": "0.95"},
        {"metric": "accuracy", "qualifier": "left-handed", "direction": "at_least", "bound": "0.9"},
        {"bound": "-1e3"},
    ],
)
def test_a_sound_objective_is_accepted(change: dict[str, str]) -> None:
    objective = replace(FAST, **change)
    assert check_objective(objective) == objective


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "objective name 'a b' is not allowed"),
        ({"metric": "Latency"}, "the metric 'Latency' is not a name such as latency_ms or accuracy"),
        ({"qualifier": ""}, "latency_ms needs a percentile, not ''"),
        ({"qualifier": "mean"}, "latency_ms needs a percentile, not 'mean'"),
        ({"qualifier": "p100"}, "latency_ms needs a percentile, not 'p100'"),
        ({"qualifier": "p0"}, "p0 is not a percentile"),
        ({"metric": "accuracy", "qualifier": "left handed"}, "cohort name 'left handed' is not allowed"),
        ({"direction": "below"}, "the direction 'below' is not known"),
        ({"bound": "fast"}, "the bound 'fast' is not a decimal number"),
        ({"bound": "NaN"}, "the bound 'NaN' is not a plain decimal number"),
        ({"bound": "1e400"}, "the bound '1e400' is not a number of this world"),
        ({"weight": "0"}, "the weight 0 is not positive"),
        ({"weight": "much"}, "the weight 'much' is not a decimal number"),
        ({"stakeholder": ""}, "an objective names its stakeholder"),
        ({"stakeholder": "x\ny"}, "the stakeholder 'x\\ny' holds control characters"),
    ],
)
def test_an_unsound_objective_is_refused_with_its_reason(change: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_objective(replace(FAST, **change))
    assert caught.value.message == message
