# From an observation to the steps that are left.
from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.artifacts import NO_FILES, FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.converge import (
    Desired,
    Effect,
    Found,
    Observed,
    Step,
    converge,
    differences,
    lies_there,
    outgrown,
    unmanaged,
)
from controlplane.domain.servers import ModelFiles, VersionState

ONE = Manifest((FileEntry("model.onnx", 10, "sha256:" + "1" * 64),))
TWO = Manifest((FileEntry("model.onnx", 10, "sha256:" + "2" * 64),))
CONFIG: JsonObject = {"name": "m", "version_policy": {"specific": {"versions": ["1"]}}}
DESIRED = Desired(config=CONFIG, serving={1: ONE}, retained={})
SETTLED = Observed(
    files=ModelFiles("text", {1: ONE}, (), 100),
    config=CONFIG,
    versions=(VersionState(1, "READY", ""),),
    mismatches=(),
    loaded_ns=100,
)
NOTHING_THERE = Observed(ModelFiles(None, {}, (), 0), None, (), (), None)


def files(**changes: object) -> Observed:
    return replace(SETTLED, files=replace(SETTLED.files, **changes))  # type: ignore[arg-type]


def test_what_is_as_desired_needs_no_step_and_shows_no_difference() -> None:
    assert converge(SETTLED, DESIRED) == ()
    assert differences(SETTLED, DESIRED) == ()


def test_a_first_deployment_writes_versions_then_config_then_loads() -> None:
    assert converge(NOTHING_THERE, DESIRED) == (
        Step(Effect.WRITE_VERSION, "version 1 is missing", 1),
        Step(Effect.WRITE_CONFIG, "config.pbtxt differs"),
        Step(Effect.LOAD, "files changed"),
    )


LABELS = Manifest((FileEntry("labels.txt", 3, "sha256:" + "3" * 64),))


@pytest.mark.parametrize(
    ("there", "wanted", "because"),
    [
        (NO_FILES, LABELS, "missing: labels.txt"),
        (LABELS, NO_FILES, "does not belong: labels.txt"),
        (Manifest((FileEntry("labels.txt", 3, "sha256:" + "4" * 64),)), LABELS, "has other bytes: labels.txt"),
        (
            Manifest((FileEntry("README.md", 3, "sha256:" + "4" * 64),)),
            LABELS,
            "does not belong: README.md; missing: labels.txt",
        ),
    ],
)
def test_files_beside_the_config_are_written_whole(there: Manifest, wanted: Manifest, because: str) -> None:
    desired = replace(DESIRED, beside=wanted)
    assert converge(files(beside=there), desired) == (
        Step(Effect.WRITE_BESIDE, because),
        Step(Effect.LOAD, "files changed"),
    )
    assert differences(files(beside=there), desired) == (because,)
    assert unmanaged(files(beside=there), desired, {1: ONE})[0].startswith("beside the config, and not as the change")


def test_no_change_waits_for_outgrown_versions_to_leave_and_they_are_no_drift() -> None:
    desired = replace(DESIRED, retained={1: ONE, 2: TWO}, outgrown=frozenset({1, 2}))
    there = files(versions={1: ONE, 2: TWO})
    assert differences(there, desired) == ()
    assert converge(there, desired) == ()
    assert outgrown(there, desired) == (
        Step(Effect.REMOVE_VERSION, "version 2 is older than the revisions that the policy keeps", 2),
    )


def test_an_empty_version_directory_is_an_ensembles_and_nobody_elses() -> None:
    ensemble = replace(DESIRED, serving={1: NO_FILES})
    assert converge(files(versions={1: NO_FILES}), ensemble) == ()
    assert differences(files(versions={1: NO_FILES}), DESIRED)[0].startswith(
        "version 1 is missing: its directory is empty"
    )


def test_other_bytes_in_a_version_directory_are_replaced() -> None:
    assert converge(files(versions={1: TWO}), DESIRED) == (
        Step(Effect.WRITE_VERSION, f"version 1 has other bytes ({TWO.digest})", 1),
        Step(Effect.LOAD, "files changed"),
    )


def test_a_version_of_another_accepted_revision_stays_and_any_other_goes() -> None:
    kept = replace(DESIRED, retained={2: TWO})
    assert converge(files(versions={1: ONE, 2: TWO}), kept) == ()
    assert converge(files(versions={1: ONE, 2: TWO}), DESIRED) == (
        Step(Effect.REMOVE_VERSION, "version 2 is not of any accepted revision", 2),
        Step(Effect.LOAD, "files changed"),
    )


def test_a_version_whose_directory_was_emptied_is_one_difference_in_plain_words() -> None:
    emptied = files(versions={}, strays=("1",))
    assert differences(emptied, DESIRED)[0] == "version 1 is missing: its directory is empty, a link or unreadable"
    assert not any("does not belong" in words for words in differences(emptied, DESIRED))
    assert [step.effect for step in converge(emptied, DESIRED)] == [
        Effect.REMOVE_STRAYS,
        Effect.WRITE_VERSION,
        Effect.LOAD,
    ]
    littered = files(versions={}, strays=("1", "notes.txt"))
    assert "does not belong: notes.txt" in differences(littered, DESIRED)


def test_strays_are_removed() -> None:
    assert converge(files(strays=("3.tmp",)), DESIRED) == (
        Step(Effect.REMOVE_STRAYS, "does not belong: 3.tmp"),
        Step(Effect.LOAD, "files changed"),
    )


def test_files_newer_than_the_last_known_load_are_loaded() -> None:
    for loaded_ns in (99, None):
        assert converge(replace(SETTLED, loaded_ns=loaded_ns), DESIRED) == (
            Step(Effect.LOAD, "no load is known to be newer than the files"),
        )


def test_an_override_that_sticks_is_undone_by_touch_and_load() -> None:
    steps = converge(replace(SETTLED, mismatches=("max_batch_size: 8 became 4",)), DESIRED)
    assert [step.effect for step in steps] == [Effect.TOUCH, Effect.LOAD]


@pytest.mark.parametrize("versions", [(), (VersionState(2, "READY", ""),), (VersionState(1, "UNAVAILABLE", "x"),)])
def test_versions_that_do_not_serve_as_desired_are_loaded(versions: tuple[VersionState, ...]) -> None:
    assert [step.effect for step in converge(replace(SETTLED, versions=versions), DESIRED)] == [Effect.LOAD]


def test_nothing_desired_unloads_and_removes_and_then_is_settled() -> None:
    gone = Desired(config=None, serving={}, retained={1: ONE})
    assert [step.effect for step in converge(SETTLED, gone)] == [Effect.UNLOAD, Effect.REMOVE_MODEL]
    assert [step.effect for step in converge(replace(SETTLED, versions=()), gone)] == [Effect.REMOVE_MODEL]
    assert converge(NOTHING_THERE, gone) == ()


def test_differences_name_bytes_config_service_and_overrides() -> None:
    observed = replace(
        files(versions={1: TWO}),
        config=None,
        versions=(VersionState(2, "READY", ""),),
        mismatches=("max_batch_size: 8 became 4",),
    )
    assert differences(observed, DESIRED) == (
        f"version 1 has other bytes ({TWO.digest})",
        "config.pbtxt differs",
        "not served: version 1",
        "served without being deployed: version 2",
        "loaded config: max_batch_size: 8 became 4",
    )


def test_an_empty_place_is_free_and_files_strays_or_a_served_version_take_it() -> None:
    assert not lies_there(NOTHING_THERE)
    assert lies_there(replace(NOTHING_THERE, files=ModelFiles(None, {}, ("notes.txt",), 0)))
    assert lies_there(replace(NOTHING_THERE, files=ModelFiles(None, {}, (), 0, LABELS)))
    assert lies_there(replace(NOTHING_THERE, versions=SETTLED.versions))
    assert lies_there(files())


def test_what_is_registered_to_the_byte_and_served_can_be_taken_over() -> None:
    assert unmanaged(SETTLED, DESIRED, {1: ONE}) == ()
    assert unmanaged(files(versions={1: ONE, 2: TWO}), DESIRED, {1: ONE, 2: TWO}) == ()


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        (files(strays=("notes.txt",)), "not of a registered version: notes.txt"),
        (replace(SETTLED, config=None), "it has no config.pbtxt that could be put back"),
        (files(versions={1: TWO}), "version 1 has other bytes than the registered ones"),
        (files(versions={1: ONE, 3: TWO}), "version 3 is not registered"),
        (replace(SETTLED, versions=()), "it is not served"),
        (
            replace(SETTLED, versions=(*SETTLED.versions, VersionState(2, "READY", ""))),
            "version 2 is served without files",
        ),
    ],
)
def test_what_could_not_be_put_back_is_not_taken_over(observed: Observed, why: str) -> None:
    assert unmanaged(observed, DESIRED, {1: ONE, 2: TWO}) == (why,)


def test_what_was_found_is_desired_again_with_the_registered_bytes() -> None:
    found = Found(CONFIG, (1,), (1, 2))
    assert Found.from_json(found.to_json()) == found
    assert found.desired({1: ONE, 2: TWO, 3: TWO}) == Desired(CONFIG, {1: ONE}, {2: TWO})
