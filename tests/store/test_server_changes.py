# Servers and environments are changed and removed while nothing depends on them, and their history stays.
from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from controlplane.domain.environments import Deployment
from controlplane.errors import AlreadyExists, Conflict, ControlPlaneError, InvalidInput, NotFound, PreconditionFailed
from controlplane.services.environments import ServerView
from tests.store.house import ENV, MODEL, House

SERVER = "remote"


def change(house: House, *, expected: str | None = None, **changes: str) -> ServerView:
    return house.environments.change_server(house["ada"], ENV, SERVER, changes, expected_digest=expected)


def remove(house: House) -> None:
    house.environments.remove_server(house["ada"], ENV, SERVER)


def undeploy(house: House) -> None:
    view = house.propose(undeploy=True)
    house.approve(view, "anna")
    house.record(house.apply(view))


def newest(house: House) -> tuple[str, dict[str, object]]:
    with house.storage.read() as unit:
        entry = unit.audit.entries(limit=1)[0]
    return entry.action, dict(entry.details)


def test_how_a_server_is_reached_changes_also_while_it_serves_and_says_what_was(house: House) -> None:
    house.deploy(1)
    seen = change(house, address="127.0.0.1:2", admin_key="main").spec
    assert (seen.address, seen.admin_key, seen.repository) == ("127.0.0.1:2", "main", "/nowhere/models")
    assert newest(house) == (
        "server.changed",
        {
            "before": {"address": "127.0.0.1:1", "admin_key": None},
            "after": {"address": "127.0.0.1:2", "admin_key": "main"},
        },
    )
    assert change(house, admin_key="").spec.admin_key is None
    assert house.environments.server(house["vera"], ENV, SERVER).spec.address == "127.0.0.1:2"


def test_a_change_that_changes_nothing_is_no_entry(house: House) -> None:
    before = newest(house)
    change(house, address="127.0.0.1:1", repository="/nowhere//models/")
    assert newest(house) == before


@pytest.mark.parametrize(
    "changes", [{}, {"address": ""}, {"repository": ""}, {"repository": "models"}, {"metrics_url": "file:///x"}]
)
def test_what_is_no_change_is_refused(house: House, changes: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        change(house, **changes)


def test_nobody_overwrites_what_they_did_not_see(house: House) -> None:
    seen = house.environments.server(house["ada"], ENV, SERVER).spec.digest
    new = change(house, expected=seen, address="127.0.0.1:2").spec.digest
    with pytest.raises(PreconditionFailed, match="was changed meanwhile"):
        change(house, expected=seen, address="127.0.0.1:3")
    assert change(house, expected=new, address="127.0.0.1:3").spec.address == "127.0.0.1:3"


def test_the_repository_stays_while_anything_depends_on_it(house: House) -> None:
    view = house.propose(1)
    with pytest.raises(Conflict, match=f"change {view.request.id} of 'digits' is open") as refused:
        change(house, repository="/nowhere/other")
    assert refused.value.hint == f"tritonctl change withdraw {view.request.id}"
    house.approve(view, "anna")
    house.apply(view)
    with pytest.raises(Conflict, match="is applying"):
        change(house, repository="/nowhere/other")
    with pytest.raises(Conflict, match="is applying"):
        remove(house)
    house.record(view)
    with pytest.raises(Conflict, match="'digits' is deployed in 'production', at revision 1"):
        change(house, repository="/nowhere/other")
    with pytest.raises(Conflict, match="'digits' is deployed"):
        remove(house)
    undeploy(house)
    with house.storage.write() as unit:
        unit.environments.set_loaded_ns(SERVER, MODEL, 1, house.clock.now())
    assert change(house, repository="/nowhere/other").spec.repository == "/nowhere/other"
    with house.storage.read() as unit:
        assert unit.environments.loaded_ns(SERVER, MODEL) is None


def test_a_repository_that_is_anothers_is_not_taken(house: House) -> None:
    house.environments.create(house["ada"], "other", "", {})
    house.environments.add_server(house["ada"], "other", "second", "127.0.0.1:1", "/nowhere/second")
    with pytest.raises(Conflict, match="belongs to another server, 'second' in 'other'"):
        change(house, repository="/nowhere/second/")


def test_a_server_that_was_launched_here_is_moved_by_its_launcher_alone(house: House) -> None:
    house.environments.create(house["ada"], "own", "", {})
    house.environments.add_server(house["ada"], "own", "mine", "127.0.0.1:1", "/nowhere/own", home="/nowhere")
    with pytest.raises(Conflict, match="was launched here"):
        house.environments.change_server(house["ada"], "own", "mine", {"address": "127.0.0.1:2"})


def test_a_name_that_is_taken_says_where(house: House) -> None:
    house.environments.create(house["ada"], "other", "", {})
    with pytest.raises(AlreadyExists, match="exists, in environment 'production'") as refused:
        house.environments.add_server(house["ada"], "other", SERVER, "127.0.0.1:1", "/nowhere/x")
    assert refused.value.hint == "tritonctl server show remote --env production"
    with pytest.raises(NotFound) as unknown:
        house.environments.server(house["ada"], "other", SERVER)
    assert unknown.value.hint == "tritonctl server show remote --env production"


def test_a_removed_server_frees_its_name_and_its_repository(house: House) -> None:
    remove(house)
    assert newest(house) == ("server.removed", {"address": "127.0.0.1:1", "repository": "/nowhere/models"})
    house.environments.create(house["ada"], "other", "", {})
    house.environments.add_server(house["ada"], "other", SERVER, "127.0.0.1:1", "/nowhere/models")
    with pytest.raises(NotFound, match="has no server"):
        house.propose(1)


def test_an_environment_is_removed_when_it_is_empty_and_its_history_stays(house: House) -> None:
    house.deploy(1)
    with pytest.raises(Conflict, match="'digits' is deployed"):
        house.environments.remove(house["ada"], ENV)
    undeploy(house)
    with pytest.raises(Conflict, match="has the server 'remote'"):
        house.environments.remove(house["ada"], ENV)
    remove(house)
    house.environments.remove(house["ada"], ENV)
    assert newest(house) == ("environment.removed", {})
    assert house.environments.environments(house["vera"]) == ()
    for act in (
        lambda: house.environments.get(house["vera"], ENV),
        lambda: house.policy(approvals=2),
        lambda: house.environments.add_server(house["ada"], ENV, SERVER, "127.0.0.1:1", "/nowhere/models"),
        lambda: house.environments.remove(house["ada"], ENV),
    ):
        with pytest.raises(NotFound, match="environment 'production' was removed at"):
            act()
    assert [r.revision.number for r in house.environments.revisions(house["vera"], ENV, MODEL)] == [2, 1]
    assert house.changes.show(house["vera"], 1).request.environment == ENV


def test_an_environment_that_is_created_again_goes_on_where_it_was(house: House) -> None:
    house.deploy(1)
    undeploy(house)
    remove(house)
    house.environments.remove(house["ada"], ENV)
    again = house.environments.create(house["ada"], ENV, "again", {"approvals": 1})
    assert (again.description, again.policy_number) == ("again", 2)
    assert house.environments.get(house["vera"], ENV) == again
    house.environments.add_server(house["ada"], ENV, SERVER, "127.0.0.1:1", "/nowhere/models")
    house.deploy(1)
    with house.storage.read() as unit:
        deployment = unit.environments.deployment(ENV, MODEL)
    assert isinstance(deployment, Deployment)
    assert deployment.revision == 3
    with pytest.raises(AlreadyExists):
        house.environments.create(house["ada"], ENV, "", {})


def test_of_a_proposal_and_a_removal_at_once_one_gives_way(house: House) -> None:
    barrier = threading.Barrier(2)

    def together(act: Callable[[], object]) -> str:
        barrier.wait()
        try:
            act()
        except ControlPlaneError as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(together, (lambda: house.propose(1), lambda: remove(house))))
    assert outcomes in (["Conflict", "done"], ["NotFound", "done"])
