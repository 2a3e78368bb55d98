# The catalog's rows: what is stored comes back, on both databases.
from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import IntegrityError

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.catalog import (
    Batching,
    Golden,
    GoldenMode,
    Inspection,
    Model,
    Objective,
    Signature,
    TensorSpec,
    Version,
)
from controlplane.errors import NotFound
from controlplane.storage.unit_of_work import Storage

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
SHA = {letter: "sha256:" + letter * 64 for letter in "abcdef"}


def model(name: str) -> Model:
    return Model(name, "vision team", "Handwritten\ndigits", (("domain", "mail"), ("tier", "1")), NOON)


def version(number: int, letter: str = "a", golden: str | None = "f", same: tuple[int, ...] = ()) -> Version:
    signature = Signature(
        inputs=(TensorSpec("input:0", "TYPE_FP32", ("N", 3, None)), TensorSpec('quo"ted', "TYPE_STRING", ())),
        outputs=(TensorSpec("y", "TYPE_INT64", ("N",)),),
        batching=Batching.MIXES_ROWS,
        opset=17,
        ir_version=8,
        producer="pytorch 2.9",
        metadata=(("author", "ü\0"), ("k", "")),
    )
    recorded = None
    if golden is not None:
        recorded = Golden(SHA[golden], 4, GoldenMode.TOLERANCE, "seeded", (("y", "0.00042"),), (("y", "0"),))
    return Version(
        model="digits",
        number=number,
        manifest=Manifest((FileEntry("model.onnx", 2**60, SHA[letter]), FileEntry("w/w.bin", 0, SHA["b"]))),
        inspection=Inspection(signature, recorded, "onnxruntime", ("one",), ("two", "three")),
        source="s3://bucket/run-7",
        registered_by="alice",
        registered_at=NOON,
        same_bytes_as=same,
        config={"backend": "onnxruntime"} if number == 2 else None,
    )


def test_a_version_comes_back_as_it_was_stored(storage: Storage) -> None:
    with storage.write() as unit:
        assert unit.catalog.ensure_model(model("digits")) is True
        unit.catalog.add_version(version(1))
        unit.catalog.add_version(version(2, same=(1,)))
    with storage.read() as unit:
        assert unit.catalog.model("digits") == model("digits")
        assert unit.catalog.version("digits", 1) == version(1)
        assert unit.catalog.versions("digits") == (version(2, same=(1,)), version(1))
        assert unit.catalog.versions("digits", limit=1) == (version(2, same=(1,)),)
        assert unit.catalog.versions("digits", before=2) == (version(1),)
        assert unit.catalog.versions("other") == ()
        assert unit.catalog.highest_number("digits") == 2
        assert unit.catalog.highest_number("other") == 0
        assert unit.catalog.numbers_of("digits", version(1).artifact) == (1, 2)


def test_an_existing_model_is_kept_and_updated_only_where_something_is_said(storage: Storage) -> None:
    with storage.write() as unit:
        unit.catalog.ensure_model(model("digits"))
    with storage.write() as unit:
        other = Model("digits", "somebody", "", (), NOON)
        assert unit.catalog.ensure_model(other) is False
        assert unit.catalog.model("digits") == model("digits")
        updated = unit.catalog.update_model("digits", owner="ml", description=None, tags={"tier": "2"})
    assert updated == Model("digits", "ml", "Handwritten\ndigits", (("tier", "2"),), NOON)
    with storage.read() as unit:
        assert unit.catalog.model("digits") == updated


def test_models_are_listed_by_code_point_in_pages(storage: Storage) -> None:
    with storage.write() as unit:
        for name in ("b", "A", "a_1", "a.1", "B", "a-1", "_", "9"):
            unit.catalog.ensure_model(model(name))
    with storage.read() as unit:
        names = [each.name for each in unit.catalog.models()]
        assert names == ["9", "A", "B", "_", "a-1", "a.1", "a_1", "b"]
        assert [each.name for each in unit.catalog.models(after="B", limit=3)] == ["_", "a-1", "a.1"]


def test_a_number_is_taken_once(storage: Storage) -> None:
    with storage.write() as unit:
        unit.catalog.ensure_model(model("digits"))
        unit.catalog.add_version(version(1))
    with pytest.raises(IntegrityError), storage.write() as unit:
        unit.catalog.add_version(version(1, "c"))


def test_referenced_blobs_are_files_and_goldens_of_versions(storage: Storage) -> None:
    with storage.write() as unit:
        unit.catalog.ensure_model(model("digits"))
        unit.catalog.add_version(version(1, "a", "f"))
        unit.catalog.add_version(version(2, "c", None))
    with storage.read() as unit:
        assert unit.catalog.referenced() == {SHA["a"], SHA["b"], SHA["c"], SHA["f"]}
        assert unit.catalog.referenced({SHA["a"], SHA["e"]}) == {SHA["a"]}
        assert unit.catalog.referenced(set()) == frozenset()


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    with storage.read() as unit:
        for look in (
            lambda: unit.catalog.model("digits"),
            lambda: unit.catalog.version("digits", 1),
            lambda: unit.catalog.remove_objective("digits", "fast"),
        ):
            with pytest.raises(NotFound):
                look()


def test_objectives_are_replaced_by_name(storage: Storage) -> None:
    fast = Objective("digits", "fast", "latency_ms", "p99", "at_most", "100", "product", None)
    right = Objective("digits", "right", "accuracy", "cohort:left-handed", "at_least", "0.95", "engineers", "2")
    faster = Objective("digits", "fast", "latency_ms", "p99", "at_most", "50", "product", None)
    with storage.write() as unit:
        unit.catalog.ensure_model(model("digits"))
        assert unit.catalog.set_objective(right) is None
        assert unit.catalog.set_objective(fast) is None
        assert unit.catalog.set_objective(faster) == fast
    with storage.write() as unit:
        assert unit.catalog.objectives("digits") == (faster, right)
        assert unit.catalog.remove_objective("digits", "fast") == faster
    with storage.read() as unit:
        assert unit.catalog.objectives("digits") == (right,)
