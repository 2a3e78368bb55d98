# What the Dask bench refuses before it reaches a cluster.
from __future__ import annotations

import importlib.util

import pytest

from controlplane.bench import cluster
from controlplane.bench.cluster import scheduler_address
from controlplane.bench.dask import DaskBench
from controlplane.errors import InvalidInput, RuntimeUnavailable, ServerUnreachable


@pytest.mark.parametrize("wrong", ["tcp://h:1", "dask://h", "dask://:8786", "h:8786", "dask://h:port"])
def test_an_address_that_is_no_scheduler_s_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="no address of a Dask scheduler"):
        DaskBench(wrong)


def test_addresses_are_those_of_dask() -> None:
    assert scheduler_address("dask://bench.example:8786") == "tcp://bench.example:8786"
    assert scheduler_address("dask+tls://[::1]:8786") == "tls://[::1]:8786"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(RuntimeUnavailable) as caught, DaskBench("dask://127.0.0.1:1"):
        pass
    assert caught.value.hint == "pip install 'triton-controlplane[dask]'"


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)

    with (
        pytest.raises(ServerUnreachable, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        DaskBench("dask://127.0.0.1:1"),
    ):
        pass
