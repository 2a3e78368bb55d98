# Objectives of a model: set, replaced, removed, audited.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controlplane.domain.artifacts import Manifest
from controlplane.domain.catalog import Objective
from controlplane.errors import (
    NotFound,
)
from controlplane.services.catalog import CatalogService, Registration
from controlplane.storage.unit_of_work import Storage
from tests.store.registrations import ALICE, PLAN, VIEWER, entries

FAST = Objective("plan", "fast", "latency_ms", "p99", "at_most", "100", "product", None)


def test_objectives_are_set_replaced_removed_and_audited(
    catalog: CatalogService, storage: Storage, upload: Callable[..., Manifest]
) -> None:
    catalog.register_version(ALICE, Registration("plan", upload(b"plan", "model.plan"), config=PLAN))
    slower = replace(FAST, bound="150", weight="0.5")
    assert catalog.set_objective(ALICE, FAST) == FAST
    assert catalog.set_objective(ALICE, FAST) == FAST
    assert catalog.set_objective(ALICE, slower) == slower
    assert catalog.objectives(VIEWER, "plan") == (slower,)
    catalog.remove_objective(ALICE, "plan", "fast")
    assert catalog.objectives(VIEWER, "plan") == ()
    facts = [(entry.action, entry.details) for entry in entries(storage)[2:]]
    old = {
        "name": "fast",
        "metric": "latency_ms",
        "qualifier": "p99",
        "direction": "at_most",
        "bound": "100",
        "stakeholder": "product",
        "weight": None,
    }
    new = {**old, "bound": "150", "weight": "0.5"}
    assert facts == [
        ("objective.set", {"name": "fast", "before": None, "after": old}),
        ("objective.set", {"name": "fast", "before": old, "after": new}),
        ("objective.removed", {"name": "fast", "before": new, "after": None}),
    ]
    with pytest.raises(NotFound):
        catalog.set_objective(ALICE, replace(FAST, model="other"))
