# Registering versions: immutable, audited, all or nothing, on both databases with the real inspector.
from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controlplane.domain.artifacts import NO_FILES, FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Batching, Version
from controlplane.domain.golden import GoldenCase, dump_cases
from controlplane.errors import (
    ArtifactInvalid,
    ControlPlaneError,
    InvalidInput,
    ModelInvalid,
    NameInvalid,
    NotFound,
    PermissionDenied,
    VersionImmutable,
)
from controlplane.services.catalog import CatalogService, Pruning, Registration
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock
from tests.store.registrations import ADMIN, ALICE, PLAN, VIEWER, entries, graph, needed


def test_a_version_is_inspected_recorded_and_audited(
    catalog: CatalogService,
    storage: Storage,
    upload: Callable[..., Manifest],
    blobs: Callable[[], set[str]],
) -> None:
    wish = Registration(
        "digits", upload(graph()), owner="ml", description="Reads\ndigits", tags={"tier": "1"}, source="s3://b/run"
    )
    version = catalog.register_version(ALICE, wish)
    assert (version.model, version.number, version.manifest, version.source, version.registered_by) == (
        "digits",
        1,
        wish.manifest,
        "s3://b/run",
        "alice",
    )
    assert version.inspection.signature is not None
    assert version.inspection.signature.batching is Batching.BATCHABLE
    assert version.inspection.golden is not None
    assert catalog.get_version(VIEWER, "digits", 1) == version
    model = catalog.get_model(VIEWER, "digits")
    assert (model.name, model.owner, model.description, model.tags) == (
        "digits",
        "ml",
        "Reads\ndigits",
        (("tier", "1"),),
    )
    assert blobs() == needed(version)
    registered, made = entries(storage)
    assert (registered.action, registered.subjects, registered.details) == (
        "model.registered",
        {"model": "digits"},
        {"owner": "ml"},
    )
    assert (made.actor.name, made.action, made.subjects, made.details) == (
        "alice",
        "version.registered",
        {"model": "digits", "version": "digits:1"},
        {
            "artifact": version.artifact,
            "size": str(version.manifest.size),
            "golden": version.inspection.golden.blob,
            "opaque": False,
            "same_bytes_as": [],
            "source": "s3://b/run",
        },
    )


def test_the_same_bytes_under_the_same_number_change_nothing(
    catalog: CatalogService, storage: Storage, upload: Callable[..., Manifest]
) -> None:
    wish = Registration("digits", upload(graph()), number=7)
    version = catalog.register_version(ALICE, wish)
    before = entries(storage)
    assert catalog.register_version(ALICE, wish) == version
    assert entries(storage) == before


def test_other_bytes_under_the_same_number_are_refused(
    catalog: CatalogService, upload: Callable[..., Manifest], blobs: Callable[[], set[str]]
) -> None:
    version = catalog.register_version(ALICE, Registration("digits", upload(graph()), number=7))
    with pytest.raises(VersionImmutable) as caught:
        catalog.register_version(ALICE, Registration("digits", upload(graph("Tanh")), number=7))
    assert caught.value.hint == "a version never changes; register it as 8, or leave out the number"
    assert catalog.versions(VIEWER, "digits") == (version,)
    assert needed(version) <= blobs()


def test_the_same_bytes_under_a_new_number_are_noted(catalog: CatalogService, upload: Callable[..., Manifest]) -> None:
    manifest = upload(graph())
    numbers = [
        catalog.register_version(ALICE, Registration("digits", manifest, number=number)).number
        for number in (5, None, 2)
    ]
    assert numbers == [5, 6, 2]
    assert [(v.number, v.same_bytes_as) for v in catalog.versions(VIEWER, "digits")] == [
        (6, (5,)),
        (5, ()),
        (2, (5, 6)),
    ]


def test_lists_are_read_in_pages(catalog: CatalogService, upload: Callable[..., Manifest]) -> None:
    manifest = upload(b"plan", "model.plan")
    for model in ("b", "a"):
        for _ in range(3):
            catalog.register_version(ALICE, Registration(model, manifest, config=PLAN))
    assert [model.name for model in catalog.models(VIEWER, limit=1)] == ["a"]
    assert [model.name for model in catalog.models(VIEWER, after="a", limit=5)] == ["b"]
    assert [version.number for version in catalog.versions(VIEWER, "a", limit=2)] == [3, 2]
    assert [version.number for version in catalog.versions(VIEWER, "a", before=2, limit=2)] == [1]
    with pytest.raises(NotFound):
        catalog.versions(VIEWER, "c")


def test_a_bad_model_leaves_no_row_and_no_file(
    catalog: CatalogService, storage: Storage, upload: Callable[..., Manifest], blobs: Callable[[], set[str]]
) -> None:
    with pytest.raises(ModelInvalid):
        catalog.register_version(ALICE, Registration("digits", upload(graph()[:-9])))
    with pytest.raises(ArtifactInvalid):
        catalog.register_version(ALICE, Registration("digits", upload(graph(), "net.onnx")))
    assert catalog.models(VIEWER) == ()
    assert entries(storage) == []
    assert blobs() == set()


def test_a_bad_model_takes_no_blob_from_a_good_one(
    catalog: CatalogService, upload: Callable[..., Manifest], blobs: Callable[[], set[str]]
) -> None:
    good = catalog.register_version(ALICE, Registration("digits", upload(graph())))
    shared = Manifest(
        tuple(sorted([*upload(b"").files, replace(good.manifest.files[0], path="a.bin")], key=lambda f: f.path))
    )
    with pytest.raises(ModelInvalid):
        catalog.register_version(ALICE, Registration("other", shared))
    assert blobs() == needed(good)


ODD = ["new\nline", 'quo"te', "it's", "$(touch x)", "a;b", "../up", "a..b", "-o", "x" * 101, "é", "a b"]


def test_names_that_triton_may_not_see_are_refused(
    catalog: CatalogService, storage: Storage, upload: Callable[..., Manifest]
) -> None:
    manifest = upload(graph())
    for name in [*ODD, "", "a/b"]:
        with pytest.raises(NameInvalid):
            catalog.register_version(ALICE, Registration(name, manifest))
    for name in [*ODD, "a/../b", "/etc/passwd"]:
        with pytest.raises(NameInvalid):
            upload(graph(), name)
    assert entries(storage) == []


def test_a_manifest_that_lies_about_a_size_is_refused(catalog: CatalogService, upload: Callable[..., Manifest]) -> None:
    (entry,) = upload(graph()).files
    with pytest.raises(ArtifactInvalid, match="has 78 bytes, the manifest says 79"):
        catalog.register_version(ALICE, Registration("digits", Manifest((replace(entry, size=79),))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0},
        {"number": 2**31},
        {"owner": "a\nb"},
        {"description": "\x1b[31m"},
        {"source": "s" * 2001},
        {"tags": {"a b": "c"}},
        {"tags": {"a": "c\n"}},
        {"owner": "\ud800"},
    ],
)
def test_odd_numbers_and_texts_are_refused(
    catalog: CatalogService, upload: Callable[..., Manifest], wrong: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput):
        catalog.register_version(ALICE, replace(Registration("digits", upload(b"x")), **wrong))  # type: ignore[arg-type]


def test_a_blob_that_was_never_uploaded_is_not_found(catalog: CatalogService) -> None:
    with pytest.raises(NotFound, match="holds no blob"):
        catalog.register_version(
            ALICE, Registration("digits", Manifest((FileEntry("model.onnx", 1, "sha256:" + "0" * 64),)))
        )


def test_who_may_not_register_is_refused_before_anything_happens(
    catalog: CatalogService, storage: Storage, upload: Callable[..., Manifest]
) -> None:
    with pytest.raises(PermissionDenied):
        catalog.register_version(VIEWER, Registration("digits", upload(graph())))
    assert [entry.action for entry in entries(storage)] == ["permission.refused"]


def test_samples_become_the_golden_and_are_not_kept(
    catalog: CatalogService, store: ObjectArtifactStore, upload: Callable[..., Manifest], blobs: Callable[[], set[str]]
) -> None:
    samples = io.BytesIO()
    np.savez(samples, x=np.ones((2, 3), np.float32))
    sha256, _ = store.add_stream([samples.getvalue()])
    version = catalog.register_version(ALICE, Registration("digits", upload(graph()), samples=sha256))
    assert version.inspection.golden is not None
    assert (version.inspection.golden.source, version.inspection.golden.cases) == ("samples", 2)
    assert blobs() == needed(version)


def test_an_opaque_version_keeps_its_config_and_recorded_answers(
    catalog: CatalogService, store: ObjectArtifactStore, upload: Callable[..., Manifest]
) -> None:
    case = GoldenCase({"x": np.zeros((1, 2), np.float32)}, {"y": np.ones((1, 2), np.float32)})
    sha256, _ = store.add_stream([dump_cases([case])])
    wish = Registration("plan", upload(b"compiled", "model.plan"), number=1, samples=sha256, config=PLAN)
    version = catalog.register_version(ALICE, wish)
    assert catalog.get_version(VIEWER, "plan", 1) == version
    assert (version.config, version.inspection.backend, version.inspection.signature) == (PLAN, "tensorrt", None)
    assert version.inspection.skipped == ("graph, signature and batching: not checked for this backend, digest only",)
    with pytest.raises(VersionImmutable, match="has other config"):
        catalog.register_version(ALICE, replace(wish, config={"backend": "python"}))


def attempts(catalog: CatalogService, wishes: list[Registration]) -> list[Version | ControlPlaneError]:
    def attempt(wish: Registration) -> Version | ControlPlaneError:
        try:
            return catalog.register_version(ALICE, wish)
        except ControlPlaneError as error:
            return error

    with ThreadPoolExecutor(len(wishes)) as pool:
        return list(pool.map(attempt, wishes))


def test_of_many_registrations_of_one_number_exactly_one_wins(
    catalog: CatalogService, storage: Storage, upload: Callable[..., Manifest], blobs: Callable[[], set[str]]
) -> None:
    wishes = [Registration("plan", upload(f"plan {k}".encode(), "model.plan"), number=3, config=PLAN) for k in range(6)]
    results = attempts(catalog, wishes)
    winners = [result for result in results if isinstance(result, Version)]
    assert len(winners) == 1
    assert [type(result) for result in results if result not in winners] == [VersionImmutable] * 5
    assert catalog.versions(VIEWER, "plan") == tuple(winners)
    assert [entry.action for entry in entries(storage)] == ["model.registered", "version.registered"]
    assert blobs() >= needed(winners[0])


def test_registrations_without_a_number_get_different_ones(
    catalog: CatalogService, upload: Callable[..., Manifest]
) -> None:
    wish = Registration("plan", upload(b"plan", "model.plan"), config=PLAN)
    results = attempts(catalog, [wish] * 6)
    assert sorted(result.number for result in results if isinstance(result, Version)) == [1, 2, 3, 4, 5, 6]


def test_good_and_bad_registrations_of_shared_files_never_lose_a_blob(
    catalog: CatalogService, upload: Callable[..., Manifest], blobs: Callable[[], set[str]]
) -> None:
    shared = upload(b"weights", "w.bin").files[0]
    good = Manifest((*upload(b"plan", "model.plan").files, shared))
    bad = Manifest((*upload(b"junk", "model.onnx").files, shared))
    results = attempts(
        catalog, [Registration(f"m{k}", bad if k % 2 else good, config=None if k % 2 else PLAN) for k in range(6)]
    )
    # A good one may find that a bad one has just taken a file back: it says so, and is tried again.
    for k in (0, 2, 4):
        if isinstance(results[k], NotFound):
            upload(b"weights", "w.bin")
            upload(b"plan", "model.plan")
            results[k] = catalog.register_version(ALICE, Registration(f"m{k}", good, config=PLAN))
    assert [type(result) for result in results] == [Version, ModelInvalid] * 3 or NotFound in map(type, results[1::2])
    assert {entry.sha256 for entry in good.files} <= blobs()


def test_only_an_ensembles_version_has_no_file(catalog: CatalogService) -> None:
    with pytest.raises(ArtifactInvalid, match="at least one file"):
        catalog.register_version(ALICE, Registration("empty", NO_FILES, config=PLAN))
    config: JsonObject = {"platform": "ensemble", "ensemble_scheduling": {"step": [{"model_name": "m"}]}}
    version = catalog.register_version(ALICE, Registration("pipe", NO_FILES, config=config))
    assert (version.manifest, version.inspection.backend) == (NO_FILES, "ensemble")
    assert catalog.get_version(VIEWER, "pipe", 1) == version


def test_the_version_policy_of_an_opaque_config_is_no_part_of_the_version(
    catalog: CatalogService, upload: Callable[..., Manifest]
) -> None:
    wish = Registration("plan", upload(b"plan", "model.plan"), number=1, config=PLAN)
    version = catalog.register_version(ALICE, wish)
    served: JsonObject = {**PLAN, "version_policy": {"specific": {"versions": ["1"]}}}
    assert catalog.register_version(ALICE, replace(wish, config=served)) == version
    assert version.config == PLAN


def test_remnants_of_a_killed_registration_are_removed_after_a_day(
    catalog: CatalogService, upload: Callable[..., Manifest], tmp_path: Path
) -> None:
    old, new = (tmp_path / f"staging/tritonctl-register-{age}" for age in ("old", "new"))
    for path in (old, new):
        (path / "files").mkdir(parents=True)
    os.utime(old, (1, 1))
    catalog.register_version(ALICE, Registration("plan", upload(b"plan", "model.plan"), config=PLAN))
    assert list((tmp_path / "staging").iterdir()) == [new]


def test_garbage_is_what_no_version_needs_and_nobody_wrote_lately(
    catalog: CatalogService,
    storage: Storage,
    clock: SteppingClock,
    upload: Callable[..., Manifest],
    blobs: Callable[[], set[str]],
) -> None:
    version = catalog.register_version(ALICE, Registration("plan", upload(b"plan", "model.plan"), config=PLAN))
    orphan = upload(b"never registered").files[0].sha256
    assert catalog.prune(ADMIN, apply=True) == Pruning((), 0, applied=True)
    clock.instant = clock.instant.replace(year=clock.instant.year + 100)
    labels = upload(b"cat", "labels.txt")
    with storage.write() as unit:
        unit.catalog.keep_beside("plan", labels)
        unit.catalog.keep_beside("plan", labels)
    assert catalog.prune(ADMIN, apply=False) == Pruning((orphan,), 16, applied=False)
    assert orphan in blobs()
    assert [entry.action for entry in entries(storage)] == ["model.registered", "version.registered"]
    assert catalog.prune(ADMIN, apply=True) == Pruning((orphan,), 16, applied=True)
    pruned = entries(storage)[-1]
    assert (pruned.action, pruned.details) == ("catalog.pruned", {"blobs": [orphan], "size": "16"})
    with pytest.raises(PermissionDenied):
        catalog.prune(ALICE, apply=False)
    assert blobs() == needed(version) | {labels.files[0].sha256}
