# Acceptance 9: bad input gets a clear error with a stable code in bounded time and memory, and leaves no row and no file.
from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from controlplane.domain.artifacts import Manifest
from controlplane.errors import ConfigInvalid, ControlPlaneError, InvalidInput
from controlplane.services.access import AccessService
from controlplane.services.catalog import CatalogService, Registration
from controlplane.services.planning import Proposal
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.types import Base
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.inspect_process import InspectionLimits
from controlplane.triton.onnx_graph import OnnxInspector
from controlplane.triton.pbtxt import PbtxtCodec
from tests.faults.test_bad_models import endless_loop, external, parse
from tests.store.clock import SteppingClock
from tests.store.house import ENV, MODEL, House
from tests.store.registrations import ALICE, graph

ENOUGH_SECONDS = 10
ENOUGH_KIB = 2**20  # what one child may hold in memory: 1 GiB
ODD_NAMES = ["new\nline", 'quo"te', "it's", "$(touch x)", "a;b", "`id`", "a|b", "../up", "a/../../b", "..", "\0", "-o"]


def counted(storage: Storage) -> dict[str, int]:
    """How many rows each table has."""
    with storage.database.engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


@contextmanager
def refused(storage: Storage, code: str) -> Iterator[list[ControlPlaneError]]:
    """In it an error with that code is raised, in bounded time and memory, and no row is left of it."""
    before, begin = counted(storage), time.monotonic()
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    caught: list[ControlPlaneError] = []
    with pytest.raises(InvalidInput) as error:
        yield caught
    caught.append(error.value)
    assert error.value.code == code, error.value
    assert error.value.message
    assert time.monotonic() - begin < 6 * ENOUGH_SECONDS
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(held, ENOUGH_KIB)
    assert counted(storage) == before


@dataclass(frozen=True)
class Bad:
    """A file that somebody sends as `path`, and how it is refused."""

    name: str
    content: bytes
    code: str
    says: str


FILES = [
    Bad("truncated", graph()[:-9], "model.invalid", "no ONNX graph, or only the beginning of one"),
    Bad("empty", b"", "model.invalid", "the file is empty"),
    Bad("no-onnx", b"\x89PNG\r\n\x1a\n" * 100, "model.invalid", "no ONNX graph"),
    Bad(
        "unknown-operator",
        parse("agraph (float[n] x) => (float[n] y) { y = Frobnicate(x) }").SerializeToString(),
        "model.invalid",
        "No Op registered for Frobnicate",
    ),
    Bad(
        "missing-external-data",
        external("weights.bin").SerializeToString(),
        "artifact.invalid",
        "'weights.bin', which is missing",
    ),
    Bad(
        "escaping-external-data",
        external("../../etc/passwd").SerializeToString(),
        "artifact.invalid",
        "not inside the artifact",
    ),
    Bad(
        "absolute-external-data",
        external("/etc/passwd").SerializeToString(),
        "artifact.invalid",
        "not inside the artifact",
    ),
    Bad("endless", endless_loop().SerializeToString(), "model.invalid", "did not come to an end"),
]


@pytest.fixture
def registering(storage: Storage, clock: SteppingClock, store: ObjectArtifactStore, tmp_path: Path) -> CatalogService:
    inspector = OnnxInspector(InspectionLimits(seconds=ENOUGH_SECONDS))
    return CatalogService(storage, AccessService(storage, clock), store, inspector, clock, staging=tmp_path / "staging")


@pytest.mark.parametrize("bad", FILES, ids=lambda bad: bad.name)
def test_acceptance_9_a_bad_file_is_refused_and_leaves_no_row_and_no_file(
    registering: CatalogService,
    storage: Storage,
    upload: Callable[..., Manifest],
    blobs: Callable[[], set[str]],
    bad: Bad,
) -> None:
    manifest = upload(bad.content)
    with refused(storage, bad.code) as caught:
        registering.register_version(ALICE, Registration("digits", manifest))
    assert bad.says in caught[0].message
    assert blobs() == set()


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_acceptance_9_a_name_that_a_shell_or_a_path_could_misread_is_refused(
    registering: CatalogService, storage: Storage, upload: Callable[..., Manifest], tmp_path: Path, name: str
) -> None:
    manifest = upload(graph())
    with refused(storage, "name.invalid"):
        registering.register_version(ALICE, Registration(name, manifest))
    with refused(storage, "name.invalid"):
        upload(graph("Tanh"), name)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in {"db.sqlite", "empty.sqlite"}) in (
        ["artifacts"],
        ["artifacts", "db.sqlite-shm", "db.sqlite-wal"],
    )


def test_acceptance_9_a_config_with_unknown_fields_is_refused_and_proposes_nothing(
    house: House, storage: Storage
) -> None:
    with pytest.raises(ConfigInvalid) as text:
        PbtxtCodec().parse('backend: "tensorrt"\nmax_batch_sise: 8\n')
    assert text.value.code == "config.invalid"
    assert "max_batch_sise" in text.value.message
    wish = Proposal(ENV, MODEL, "a reason", versions=(1,), config={"backend": "tensorrt", "max_batch_sise": 8})
    with refused(storage, "config.invalid") as caught:
        house.changes.propose(house["olga"], wish)
    assert "max_batch_sise" in caught[0].message
