# The order of choice: a given binary, then the runtime environment; each refusal says what to do.
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.find import MARKER, TritonRuntime, environment_directory, find, info, installed


def test_a_given_binary_comes_first(tmp_path: Path) -> None:
    binary = Path(sys.executable)
    assert find(tmp_path, binary) == TritonRuntime(binary, None)
    assert info(tmp_path, binary) == {"source": "given binary", "tritonserver": str(binary)}


def test_a_given_binary_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tritonserver").touch()
    with pytest.raises(RuntimeUnavailable, match="is not a program that can be run"):
        find(tmp_path, tmp_path / "tritonserver")


def test_without_an_environment_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable) as refusal:
        find(tmp_path)
    assert refusal.value.message == f"there is no embedded Triton in {tmp_path}"
    assert refusal.value.hint == (
        "run 'tritonctl runtime install', or give the address of a Triton server that runs elsewhere"
    )


@pytest.mark.parametrize("marker", ["", "{}", '{"python": "3.11", "numpy": "1.26.4", "onnxruntime": "1.22.0"}'])
def test_an_environment_that_is_not_whole_is_none(tmp_path: Path, marker: str) -> None:
    target = environment_directory(tmp_path)
    target.mkdir()
    (target / MARKER).write_text(marker)
    assert installed(tmp_path) is None
