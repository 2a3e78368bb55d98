# Fingerprints: their canonical form, what is of one class, and what differs in words.
from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.domain.canonical import canonical_bytes
from controlplane.domain.fingerprints import Fingerprint, Gpu, Host, Serving, class_of, differences, same_class
from controlplane.errors import InvalidInput

GPU = Gpu("NVIDIA H200", "550.90.07", 143_771, 1980, 3201, 1980, 3201, 700_000, "Disabled")
HOST = Host("Xeon 8480", 2, 4, 4000, "performance", 16 * 2**30, (GPU,), "6.8.0-45-generic", 1200)
SERVING = Serving("2.51.0", "sha256:12", (("numpy", "1.26.4"), ("onnxruntime", "1.22.0")), "tritonserver:24.10-py3")
HERE = Fingerprint(HOST, SERVING, local=True, packages=(("numpy", "2.4.6"),), control_plane="0.1.0", commit="abc")


def with_host(**changes: object) -> Fingerprint:
    return replace(HERE, host=replace(HOST, **changes))  # type: ignore[arg-type]


def with_serving(**changes: object) -> Fingerprint:
    return replace(HERE, serving=replace(SERVING, **changes))  # type: ignore[arg-type]


def test_it_is_canonical_json_without_floats_and_comes_back_whole() -> None:
    for one in (HERE, with_host(gpus=()), with_host(gpus=None, steal_ppm=None), replace(HERE, host=None, commit=None)):
        assert json.loads(canonical_bytes(one.to_json())) == one.to_json()
        assert Fingerprint.from_json(one.to_json()) == one
        assert one.digest == Fingerprint.from_json(one.to_json()).digest
    assert HERE.digest.startswith("sha256:")
    assert HERE.digest != with_host(steal_ppm=1201).digest


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {**HERE.to_json(), "more": 1},
        {**HERE.to_json(), "local": 1},
        {**HERE.to_json(), "commit": 7},
        {**HERE.to_json(), "packages": ["numpy"]},
        {**HERE.to_json(), "host": {"cpu_model": "x"}},
        {**HERE.to_json(), "host": {**with_host(threads=-1).to_json()["host"]}},  # type: ignore[dict-item]
        {**HERE.to_json(), "host": {**with_host(memory_bytes=1.5).to_json()["host"]}},  # type: ignore[dict-item]
        {**HERE.to_json(), "host": {**HERE.to_json()["host"], "gpus": "many"}},  # type: ignore[dict-item]
    ],
)
def test_what_is_no_fingerprint_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="this is not a fingerprint"):
        Fingerprint.from_json(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        with_host(steal_ppm=90_000, kernel="6.8.0-50-generic"),
        with_host(memory_bytes=16 * 2**30 - 2**20),
        with_host(gpus=(replace(GPU, clock_mhz=345, clock_memory_mhz=405, driver="550.127.05"),)),
        replace(HERE, packages=(("numpy", "2.5.0"),), control_plane="0.2.0", commit=None),
    ],
)
def test_what_moves_by_itself_leaves_the_class_as_it_is(other: Fingerprint) -> None:
    assert same_class(HERE, other) is True
    assert differences(HERE, other)
    assert not any("class" in line for line in differences(HERE, other))


@pytest.mark.parametrize(
    "other",
    [
        with_host(cpu_model="EPYC 9554"),
        with_host(cores=4),
        with_host(usable_millicpus=2000),
        with_host(governor="powersave"),
        with_host(memory_bytes=32 * 2**30),
        with_host(gpus=()),
        with_host(gpus=(GPU, GPU)),
        with_host(gpus=(replace(GPU, power_limit_mw=500_000),)),
        with_host(gpus=(replace(GPU, driver="560.35.03"),)),
        with_serving(triton_version="2.58.0"),
        with_serving(backends=(("numpy", "1.26.4"), ("onnxruntime", "1.23.0"))),
        replace(HERE, local=False),
    ],
)
def test_hardware_limits_and_what_serves_make_the_class(other: Fingerprint) -> None:
    assert same_class(HERE, other) is False
    assert same_class(other, HERE) is False
    assert any(line.endswith("(another class)") for line in differences(HERE, other))


@pytest.mark.parametrize(
    "other",
    [
        with_host(gpus=None),
        with_host(governor=None),
        with_host(threads=None),
        with_host(gpus=(replace(GPU, power_limit_mw=None),)),
        with_serving(build=None),
        with_serving(image=None),
        with_serving(backends=None),
        with_serving(backends=(("onnxruntime", "1.22.0"),)),
        replace(HERE, host=None),
    ],
)
def test_what_only_one_side_tells_cannot_be_told_and_is_never_taken_for_nothing(other: Fingerprint) -> None:
    assert same_class(HERE, other) is None
    assert same_class(other, HERE) is None
    assert any("nobody can tell" in line for line in differences(HERE, other))
    assert same_class(HERE, replace(other, local=False)) is False


def test_what_neither_side_tells_leaves_the_class_open_where_the_class_needs_it() -> None:
    blind = with_host(gpus=None)
    assert same_class(blind, blind) is None
    assert differences(blind, blind) == (
        "GPUs: not known on either side (so nobody can tell whether the class is the same)",
    )
    assert class_of(replace(HERE, host=None))["gpus"] is None
    assert class_of(with_host(gpus=()))["gpus"] == []


def test_a_machine_without_governor_and_image_is_of_one_class_with_its_like() -> None:
    machine = replace(with_host(governor=None, gpus=()), serving=Serving("2.51.0"))

    assert same_class(machine, machine) is True
    assert differences(machine, machine) == ()


def test_differences_say_what_here_and_there_and_what_they_mean() -> None:
    there = replace(
        with_host(cpu_model="EPYC 9554", gpus=None, steal_ppm=None),
        serving=replace(SERVING, backends=(("onnxruntime", "1.23.0"),)),
        local=False,
    )

    board = (
        "NVIDIA H200 (driver 550.90.07, memory_mib 143771, clock_mhz 1980, clock_memory_mhz 3201, clock_most_mhz 1980, "
        "clock_memory_most_mhz 3201, power_limit_mw 700000, mig Disabled)"
    )
    assert differences(HERE, there) == (
        "processor: Xeon 8480 here, EPYC 9554 there (another class)",
        f"GPUs: {board} here, not known there (so nobody can tell whether the class is the same)",
        "stolen processor time in millionths: 1200 here, not known there",
        "load from the server's own host: yes here, no there (another class)",
        "backend numpy: 1.26.4 here, not known there (so nobody can tell whether the class is the same)",
        "backend onnxruntime: 1.22.0 here, 1.23.0 there (another class)",
    )
    assert differences(HERE, HERE) == ()


def test_processors_that_were_kept_awake_are_another_class_and_older_fingerprints_keep_their_digests() -> None:
    awake = with_host(kept_awake=True)
    assert "kept_awake" not in HERE.to_json()["host"]  # type: ignore[operator]
    assert Fingerprint.from_json(awake.to_json()) == awake
    assert awake.digest != HERE.digest
    assert same_class(HERE, awake) is False
    assert differences(HERE, awake) == ("processors kept awake: no here, yes there (another class)",)
