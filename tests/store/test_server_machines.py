# Looks at the machines of servers: what is kept, and when it is written anew.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.environments import ServerSpec
from controlplane.domain.fingerprints import Fingerprint
from controlplane.services.server_machines import MachineWatch
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock
from tests.store.house import ENV, House, furnished
from tests.store.test_evidence import MACHINE


@pytest.fixture
def house(storage: Storage, clock: SteppingClock, tmp_path: Path) -> Iterator[House]:
    with furnished(storage, clock, tmp_path) as found:
        yield found


def kept(house: House) -> Fingerprint | None:
    with house.storage.read() as unit:
        (server,) = unit.environments.servers(ENV)
        digest = unit.server_fingerprints.of_environment(ENV).get(server.digest, "")
        return unit.sweeps.fingerprints([digest]).get(digest)


def test_a_machine_is_kept_until_it_is_of_another_class(house: House) -> None:
    seen: list[Fingerprint | None] = [None]

    def read(spec: ServerSpec) -> Fingerprint | None:
        assert spec.name == "remote"
        return seen[-1]

    watch = MachineWatch(house.storage, read, house.clock)
    assert not watch.look()
    assert kept(house) is None
    seen.append(MACHINE)
    assert watch.look()
    assert kept(house) == MACHINE
    seen.append(replace(MACHINE, control_plane="2"))
    watch.look()
    assert kept(house) == MACHINE
    other = replace(MACHINE, serving=replace(MACHINE.serving, triton_version="2.52.0"))
    seen.append(other)
    watch.look()
    assert kept(house) == other
    seen.append(None)
    watch.look()
    assert kept(house) == other
    house.environments.change_server(house["ada"], ENV, "remote", {"address": "127.0.0.1:2"})
    watch.look()
    assert kept(house) is None
