# An ensemble and its members are locked together, on both databases.
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from controlplane.domain.artifacts import NO_FILES
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Inspection, Model, Version
from controlplane.errors import ChangeBlocked
from controlplane.services.change_views import ChangeView
from controlplane.services.planning import Proposal
from tests.store.house import ENV, MODEL, House

PIPE: JsonObject = {
    "platform": "ensemble",
    "ensemble_scheduling": {
        "step": [{"model_name": MODEL, "model_version": "-1", "input_map": {"x": "x"}, "output_map": {"y": "y"}}]
    },
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["1"]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["1"]}],
}


def pipe(house: House) -> ChangeView:
    """An approved change that deploys the ensemble."""
    with house.storage.write() as unit:
        unit.catalog.ensure_model(Model("pipe", "olga", "", (), house.clock.now()))
        found = Inspection(None, None, "ensemble")
        version = Version("pipe", 1, NO_FILES, found, "", "olga", house.clock.now(), config=PIPE)
        unit.catalog.add_version(version)
    view = house.changes.propose(house["olga"], Proposal(ENV, "pipe", "a reason", versions=(1,)))
    house.approve(view, "anna")
    return view


def member(house: House, number: int) -> ChangeView:
    view = house.propose(number)
    house.approve(view, "anna")
    return view


def test_an_ensemble_waits_for_its_member_and_the_member_for_the_ensemble(house: House) -> None:
    ensemble = pipe(house)
    assert house.blocked(ensemble) == ["members"]
    house.deploy(1)
    second = member(house, 2)
    house.apply(ensemble)
    assert house.blocked(second) == ["active"]


@pytest.mark.parametrize("again", range(4))
def test_of_an_ensemble_and_its_member_applied_at_once_one_waits(house: House, again: int) -> None:
    house.deploy(1)
    views = [pipe(house), member(house, 2)]

    def apply(view: ChangeView) -> str:
        try:
            house.apply(view)
        except ChangeBlocked as error:
            return str(error.details["blockers"])
        return "applied"

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(apply, views if again % 2 else views[::-1]))
    assert sorted(text == "applied" for text in said) == [False, True]
    assert "'code': 'active'" in next(text for text in said if text != "applied")
