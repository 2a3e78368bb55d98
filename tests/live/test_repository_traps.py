# The traps that Triton lays for whoever changes its repository, and that our writes step over.
from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from controlplane.errors import LoadFailed, ServerError
from tests.live.scaling import Site, config, graph, open_site
from tests.live.servers import LiveTriton, MakeTriton


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    yield opened
    opened.server.close()


def inferences(site: Site, model: str, version: int, expected: int) -> int:
    """Inferences that a version counts since it was loaded: a full reload begins again at nothing. Triton counts one a
    moment after it answered, so what is fewer than expected is asked for again."""
    request = service_pb2.ModelStatisticsRequest(name=model, version=str(version))
    end = time.monotonic() + 60
    while True:
        (statistics,) = site.server._stub.ModelStatistics(request, timeout=60).model_stats
        if statistics.inference_count >= expected or time.monotonic() > end:
            return int(statistics.inference_count)
        time.sleep(0.01)


def test_older_bytes_put_back_with_their_old_times_are_ignored_by_triton_and_loaded_after_our_write(
    site: Site,
) -> None:
    home = site.repository.root / "older"
    backup = site.live.home / "older-backup"
    site.write("older", {1: 3}, config())
    home.rename(backup)  # its change times stay those of now, before the next version of the bytes is loaded
    site.write("older", {1: 5}, config())
    site.load("older")
    assert site.factor("older") == 5
    shutil.rmtree(home)
    home.symlink_to(backup)  # older content under the same name, as a careless rollback puts it
    site.load("older")
    assert site.factor("older") == 5  # "OK", and nothing was loaded

    site.write("older", {1: 3}, config())
    site.load("older")
    assert site.factor("older") == 3
    assert not home.is_symlink()


def test_a_directory_renamed_back_is_loaded_after_a_touch(site: Site) -> None:
    site.write("renamed", {1: 3}, config())
    home = site.repository.root / "renamed"
    (home / "1").rename(site.live.home / "renamed-backup")
    site.write("renamed", {1: 5}, config())
    site.load("renamed")
    assert site.factor("renamed") == 5
    shutil.rmtree(home / "1")
    (site.live.home / "renamed-backup").rename(home / "1")
    site.write("renamed", {1: 3}, config())  # nothing to do: the bytes are right
    site.repository.touch("renamed")  # whether the rename itself gave a new time is the file system's affair
    site.load("renamed")
    assert site.factor("renamed") == 3


def test_bytes_planted_with_a_time_in_the_future_are_replaced_by_a_load(site: Site) -> None:
    site.write("future", {1: 3}, config())
    planted = site.repository.root / "future/1/model.onnx"
    planted.write_bytes(graph(7))
    later = time.time_ns() + 3600 * 10**9
    os.utime(planted, ns=(later, later))
    site.load("future")
    assert site.factor("future") == 7
    site.write("future", {1: 3}, config())
    site.load("future")
    assert site.factor("future") == 3


def test_a_version_removed_and_written_again_with_other_bytes_is_loaded(site: Site) -> None:
    for factor in (3, 5, 3):
        site.write("again", {1: factor, 2: 9}, config(versions=(1,)))
        site.load("again")
        assert (site.factor("again"), site.ready("again")) == (factor, [1])
        site.repository.remove_version("again", 1)


def test_an_override_sticks_through_a_load_and_is_undone_by_touch_and_load(site: Site) -> None:
    site.write("override", {1: 3, 2: 5}, config(versions=(1,)))
    site.load("override")
    request = service_pb2.RepositoryModelLoadRequest(model_name="override")
    request.parameters["config"].string_param = (
        '{"backend":"onnxruntime","max_batch_size":4,"version_policy":{"specific":{"versions":[2]}},'
        '"input":[{"name":"X","data_type":"TYPE_FP32","dims":[2]}],"output":[{"name":"Y","data_type":"TYPE_FP32","dims":[2]}]}'
    )
    site.server._stub.RepositoryModelLoad(request, timeout=30, metadata=site.server._metadata)
    assert (site.ready("override"), site.factor("override")) == ([2], 5)
    site.load("override")
    assert (site.ready("override"), site.factor("override")) == ([2], 5)
    site.repository.touch("override")
    site.load("override")
    settled(site, "override", [1])
    loaded = site.server.config("override")
    assert loaded is not None
    assert (loaded["max_batch_size"], site.factor("override")) == (8, 3)


def test_a_config_changed_back_to_an_earlier_text_is_loaded_each_time(site: Site) -> None:
    for delay in ("100", "200", "100"):
        text = config().replace("dynamic_batching { }", f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}")
        site.write("delay", {1: 3}, text)
        site.load("delay")
        loaded = site.server.config("delay")
        assert loaded is not None
        assert loaded["dynamic_batching"] == {"preferred_batch_size": [8], "max_queue_delay_microseconds": delay}


def test_dropping_a_version_by_policy_happens_in_place_within_milliseconds(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write("warm", {1: 3, 2: 5}, config(versions=(1, 2)))
    site.load("warm")
    for _ in range(4):
        assert site.factor("warm", 1) == 3
    times = []
    for versions in ((1,), (1, 2), (1,)):
        begun = time.perf_counter()
        site.repository.write_config("warm", config(versions=versions))
        written = time.perf_counter()
        site.load("warm")
        times.append(
            f"{versions}: write {(written - begun) * 1e3:.1f} ms, load {(time.perf_counter() - written) * 1e3:.1f} ms"
        )
        settled(site, "warm", list(versions))
        assert site.factor("warm") == (5 if 2 in versions else 3)
    with capsys.disabled():
        print("\nversion policy in place", *times, sep="\n  ")
    # 4 of before, 2 without a version number while only 1 was there: version 1 never went.
    assert inferences(site, "warm", 1, 6) == 6


def test_a_new_version_beside_a_serving_one_leaves_that_one_alone(site: Site) -> None:
    site.write("beside", {1: 3}, config(versions=(1,)))
    site.load("beside")
    assert site.factor("beside", 1) == 3
    site.write("beside", {2: 5}, config(versions=(1, 2)))
    site.load("beside")
    assert (site.factor("beside"), site.ready("beside")) == (5, [1, 2])
    assert inferences(site, "beside", 1, 1) == 1


def test_a_directory_that_triton_takes_for_a_version_fails_the_load_until_the_strays_are_moved_out(
    site: Site,
) -> None:
    site.write("strays", {1: 3}, config(extra="version_policy { all { } }"))
    (site.repository.root / "strays/3.tmp").mkdir()
    assert site.repository.observe("strays").strays == ("3.tmp",)
    with pytest.raises(LoadFailed):
        site.load("strays")
    site.repository.remove_strays("strays")
    site.load("strays")
    assert (site.factor("strays"), site.ready("strays")) == (3, [1])


def test_a_dangling_link_in_the_root_breaks_the_index_until_it_is_removed(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    site = open_site(make_triton(), tmp_path)
    site.write("m", {1: 3}, config())
    site.load("m")
    (site.repository.root / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ServerError):
        site.server.models()
    site.repository.remove_strays("gone")
    assert list(site.server.models()) == ["m"]


def test_the_repository_alone_is_enough_for_a_restarted_server(make_triton: MakeTriton, tmp_path: Path) -> None:
    live = make_triton()
    site = open_site(live, tmp_path)
    site.write("m", {1: 3, 2: 5}, config(versions=(1,)))
    live.process.stop(90)
    live.process.start()
    live.process.wait_ready(60)
    settled(site, "m", [1])
    assert site.factor("m") == 3


def settled(site: Site, model: str, versions: list[int]) -> None:
    """Wait until just these are ready: dropped ones drain for a moment."""
    end = time.monotonic() + 90
    while site.ready(model) != versions:
        assert time.monotonic() < end, site.server.versions(model)
        time.sleep(0.01)
