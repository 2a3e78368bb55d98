# Paths that reach a shell, ports, and which Python will do.
from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.interpreter import USABLE_VERSIONS, choose_interpreter
from controlplane.triton.runtime.paths import REQUIREMENTS, check_shell_safe
from controlplane.triton.runtime.ports import choose_ports, is_free


def test_a_plain_path_is_accepted() -> None:
    check_shell_safe(Path("/home/a.b-c_d/e+f/@g=h"), "the home")


@pytest.mark.parametrize("path", ["/a b", "/a$b", "/a;b", "/a\nb", "/a'b", "/a`b`", "/ä", "relative", "/a:b", "/a,b"])
def test_a_path_with_other_characters_is_refused_by_name(path: str) -> None:
    with pytest.raises(RuntimeUnavailable) as refusal:
        check_shell_safe(Path(path), "the home")
    assert repr(path) in refusal.value.message


def test_chosen_ports_are_three_free_ones_below_those_of_outgoing_connections() -> None:
    ports = choose_ports()
    chosen = {ports.grpc, ports.http, ports.metrics}
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(chosen) == 3
    assert all(20000 <= port < lowest_outgoing and is_free(port) for port in chosen)


def test_a_port_that_someone_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_the_interpreter_is_a_version_that_the_server_has_a_stub_for() -> None:
    chosen = choose_interpreter()
    assert chosen.version in USABLE_VERSIONS
    assert chosen.library.endswith(f"libpython{chosen.version}.so.1.0")
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert chosen.version == running or running not in USABLE_VERSIONS


def test_a_search_path_without_a_usable_python_names_each_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "python3"
    wrong.write_text("#!/bin/sh\nexit 127\n")
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "absent"))
    with pytest.raises(RuntimeUnavailable) as refusal:
        choose_interpreter()
    assert f"{wrong}: does not run (exit status 127)" in refusal.value.message
    assert refusal.value.hint is not None
    assert "give the address of a Triton server" in refusal.value.hint


def test_every_locked_package_has_its_hashes() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    packages = [line for line in lines if not line.startswith(" ")]
    assert all("==" in line and line.endswith("\\") for line in packages)
    assert {line.partition("==")[0] for line in packages} == {
        "flatbuffers",
        "numpy",
        "nvidia-pytriton",
        "onnxruntime",
        "packaging",
        "protobuf",
    }
