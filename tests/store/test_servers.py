# Servers of environments: which repository is whose, also when two are added at the same time.
from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from controlplane.errors import Conflict, ControlPlaneError, InvalidInput
from controlplane.services.access import AccessService
from controlplane.services.environments import EnvironmentService
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock


class House:
    """An admin, and the environment `prod` with the server `remote`."""

    def __init__(self, storage: Storage, clock: SteppingClock) -> None:
        access = AccessService(storage, clock)
        self.ada, _ = access.bootstrap("ada", None)
        self.environments = EnvironmentService(storage, access, clock)
        self.create("prod")
        self.add("prod", "remote", "/nowhere/models")

    def create(self, name: str) -> None:
        self.environments.create(self.ada, name, "", {})

    def add(self, environment: str, name: str, repository: str, *, metrics_url: str | None = None) -> None:
        self.environments.add_server(self.ada, environment, name, "127.0.0.1:1", repository, metrics_url=metrics_url)

    def servers(self, *environments: str) -> int:
        return sum(len(self.environments.servers(self.ada, name)) for name in environments)


@pytest.fixture
def house(storage: Storage, clock: SteppingClock) -> House:
    return House(storage, clock)


@pytest.mark.parametrize("alias", ["/nowhere/models/", "/nowhere//models", "/nowhere/./models", "//nowhere/models"])
def test_a_repository_has_one_owner_however_its_path_is_spelt(house: House, alias: str) -> None:
    house.create("other")
    with pytest.raises(Conflict, match="belongs to another server"):
        house.add("other", "second", alias)


@pytest.mark.parametrize("path", ["/nowhere/x/../models", "models", ""])
def test_a_repository_is_named_by_an_absolute_path_without_steps_up(house: House, path: str) -> None:
    house.create("other")
    with pytest.raises(InvalidInput, match="not an absolute path"):
        house.add("other", "second", path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/metrics", "host:8002/metrics"])
def test_metrics_come_over_http(house: House, url: str) -> None:
    house.create("other")
    with pytest.raises(InvalidInput, match="is not an http or https address"):
        house.add("other", "second", "/nowhere/m", metrics_url=url)
    with pytest.raises(InvalidInput, match="is not an http or https address"):
        house.environments.place_server(house.ada, "prod", "remote", "127.0.0.1:1", url)


def together(*acts: Callable[[], None]) -> list[str]:
    """The outcomes' names, sorted."""
    barrier = threading.Barrier(len(acts))

    def act(one: Callable[[], None]) -> str:
        barrier.wait()
        try:
            one()
        except ControlPlaneError as error:
            return type(error).__name__
        return "added"

    with ThreadPoolExecutor(len(acts)) as pool:
        return sorted(pool.map(act, acts))


def test_of_servers_added_at_once_an_environment_gets_one(house: House) -> None:
    house.create("other")
    acts = [lambda n=n: house.add("other", f"s{n}", f"/nowhere/{n}") for n in range(4)]
    assert together(*acts) == ["Conflict", "Conflict", "Conflict", "added"]
    assert house.servers("other") == 1


def test_of_servers_added_at_once_a_repository_gets_one(house: House) -> None:
    for n in range(4):
        house.create(f"e{n}")
    acts = [lambda n=n: house.add(f"e{n}", f"s{n}", "/nowhere/shared") for n in range(4)]
    assert together(*acts) == ["Conflict", "Conflict", "Conflict", "added"]
    assert house.servers("e0", "e1", "e2", "e3") == 1
