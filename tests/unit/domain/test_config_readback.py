# Whatever is not Triton's to decide must be reported as it was written.
from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_diff import FieldChange
from controlplane.domain.config_readback import mismatches, normalise

WRITTEN: JsonObject = {
    "name": "m",
    "backend": "onnxruntime",
    "version_policy": {"specific": {"versions": ["1"]}},
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    "dynamic_batching": {"max_queue_delay_microseconds": "100"},
    "sequence_batching": {"oldest": {"max_candidate_sequences": 4}},
    "parameters": {"intra_op_thread_count": {"string_value": "1"}},
}
REPORTED: JsonObject = {
    **WRITTEN,
    "platform": "onnxruntime_onnx",
    "runtime": "model.py",
    "default_model_filename": "model.onnx",
    "optimization": {"input_pinned_memory": {"enable": True}, "output_pinned_memory": {"enable": True}},
    "instance_group": [{"name": "m_0", "count": 1, "kind": "KIND_CPU"}],
    "dynamic_batching": {"preferred_batch_size": [8], "max_queue_delay_microseconds": "100"},
    "sequence_batching": {
        "max_sequence_idle_microseconds": "1000000",
        "oldest": {"preferred_batch_size": [8], "max_candidate_sequences": 4},
    },
}


def test_the_expected_report_has_no_mismatch() -> None:
    assert mismatches(WRITTEN, REPORTED) == ()
    assert mismatches(normalise(WRITTEN), REPORTED) == ()


def test_nvidias_backend_reports_its_library_as_the_runtime() -> None:
    assert mismatches(WRITTEN, {**REPORTED, "runtime": "libtriton_onnxruntime.so"}) == ()


def _leaves(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path


def _with(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    if not path:
        return new
    if isinstance(value, dict):
        return {k: _with(v, path[1:], new) if k == path[0] else v for k, v in value.items()}
    assert isinstance(value, list)
    return [_with(v, path[1:], new) if i == path[0] else v for i, v in enumerate(value)]


@pytest.mark.parametrize("path", list(_leaves(REPORTED)), ids=str)
def test_every_value_that_is_reported_otherwise_is_a_mismatch(path: tuple[str | int, ...]) -> None:
    changed = _with(REPORTED, path, "something else")
    assert isinstance(changed, dict)
    assert mismatches(WRITTEN, changed) != ()


@pytest.mark.parametrize("field", ["response_cache", "model_operations", "cc_model_filenames"])
def test_a_field_that_nobody_wrote_is_a_mismatch(field: str) -> None:
    assert mismatches(WRITTEN, {**REPORTED, field: {"a": "b"}}) == (FieldChange(field, None, {"a": "b"}),)


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        ([], [{"name": "m", "count": 2, "kind": "KIND_CPU"}]),
        ([], [{"name": "m_0", "count": 1, "kind": "KIND_GPU", "gpus": [0]}]),
        ([{"name": "g"}], [{"name": "g", "count": 1, "kind": "KIND_GPU", "gpus": [0, 1]}]),
        ([{"name": "g", "kind": "KIND_GPU", "count": 1}], [{"name": "g", "count": 1, "kind": "KIND_GPU", "gpus": [0]}]),
    ],
)
def test_what_was_left_to_the_server_is_taken_as_it_decided(
    written: list[JsonObject], reported: list[JsonObject]
) -> None:
    config = {k: v for k, v in WRITTEN.items() if k != "instance_group"}
    config.update({"instance_group": written} if written else {})
    assert mismatches(config, {**REPORTED, "instance_group": reported}) == ()


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        ([], [{"name": "other", "count": 2, "kind": "KIND_CPU"}]),
        ([{"name": "g", "count": 2, "kind": "KIND_CPU"}], [{"name": "g", "count": 1, "kind": "KIND_CPU"}]),
        ([{"name": "g", "count": 1, "kind": "KIND_CPU"}], [{"name": "g", "count": 1, "kind": "KIND_GPU"}]),
        (
            [{"name": "g", "count": 1, "kind": "KIND_GPU", "gpus": [1]}],
            [{"name": "g", "count": 1, "kind": "KIND_GPU", "gpus": [0]}],
        ),
    ],
)
def test_other_instances_than_written_are_a_mismatch(written: list[JsonObject], reported: list[JsonObject]) -> None:
    config = {k: v for k, v in WRITTEN.items() if k != "instance_group"}
    config.update({"instance_group": written} if written else {})
    assert mismatches(config, {**REPORTED, "instance_group": reported}) != ()


def test_a_config_without_inputs_and_outputs_may_be_completed_by_the_server() -> None:
    bare: JsonObject = {"name": "m", "version_policy": WRITTEN["version_policy"]}
    completed: JsonObject = {
        **{k: v for k, v in REPORTED.items() if k not in {"sequence_batching", "parameters"}},
        "dynamic_batching": {"preferred_batch_size": [8]},
    }
    assert mismatches(bare, completed) == ()
