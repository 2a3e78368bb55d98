# `python -m clients.load` against a real Triton server, as people and programs run it.
from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from clients.inference import InferenceClient
from clients.load.command import load
from clients.load.server import statistics
from tests.live.certificates import authority_and_client
from tests.live.python_models import ACCUMULATOR, accumulator, serve
from tests.live.scaling import Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton
from tests.live.test_load_streams import COUNTING, COUNTING_CONFIG
from tests.unit.load.schema import match

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "clients.load"]
SLEEPING = """
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.02 * len(requests))
        rows = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", row.as_numpy())]) for row in rows]
"""
SLEEPING_CONFIG = """backend: "python" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: 1 }
    output { name: "Y" data_type: TYPE_FP32 dims: 1 }
    instance_group { count: 1 kind: KIND_CPU }"""
QUICK = ("--seconds", "1", "--max-seconds", "1", "--warm-up", "0.2", "--no-calibration")
VERDICTS = {0, 5, 6, 7}  # of a second on a machine that does other things too


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    for name, factor in (("asked", 3), ("other", 5)):
        if not opened.ready(name):
            opened.write(name, {1: factor}, config())
            opened.load(name)
    yield opened
    opened.server.close()


def run(site: Site, *words: str, status: set[int] | None = None) -> Result:
    """In this process: loading numpy and the rest takes most of a short run's time."""
    done = CliRunner().invoke(load, [*words, "--url", site.live.grpc], prog_name="python -m clients.load")
    assert done.exit_code in (VERDICTS if status is None else status), done.output
    return done


def run_json(site: Site, *words: str, status: set[int] | None = None) -> dict[str, object]:
    """Also held against the schema."""
    done = run(site, *words, "-o", "json", status=status)
    tree: dict[str, object] = json.loads(done.stdout)
    assert match(tree)[1] == []
    assert tree["status"] == done.exit_code
    return tree


def point(tree: dict[str, object], number: int = 0) -> dict[str, object]:
    points = tree["points"]
    assert isinstance(points, list)
    found: dict[str, object] = points[number]
    return found


def succeeded(site: Site, model: str) -> int:
    with InferenceClient(site.live.grpc) as client:
        return statistics(client, model, version=None).succeeded


def test_the_table_says_what_is_measured_and_nothing_else_is_written_in_a_pipe(site: Site) -> None:
    options = ["--concurrency", "4", "--seconds", "1", "--max-seconds", "1", "--metrics-url", site.live.metrics]
    done = subprocess.run(
        [*COMMAND, "asked", "--url", site.live.grpc, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in VERDICTS
    for words in (
        "asked version 1 (the highest that is ready): 16 distinct requests of", f"at {site.live.grpc}, by http2",
        "4 in flight: ", "p50", "p99.9", "latency", "queue", "infer", "batches", "without inference at most", "nv_cpu_",
    ):  # fmt: skip
        assert words in done.stdout
    assert done.stderr == ""


def test_load_acceptance_2_the_json_is_the_schemas_and_counts_as_the_server_does(site: Site, tmp_path: Path) -> None:
    before = succeeded(site, "asked")
    tree = run_json(site, "asked", "--rate", "100", *QUICK, "--processes", "2", "--raw", str(tmp_path / "raw.npz"))
    one = point(tree)
    series = one["series"]
    assert isinstance(series, dict)
    counted = succeeded(site, "asked") - before
    assert sum(series["completed"]) == counted > 5
    assert one["server"]["asked"]["succeeded"] == counted  # type: ignore[index]
    with np.load(tmp_path / "raw.npz") as raw:
        assert len(raw["due"]) == counted
        assert set(raw["status"].tolist()) == {0}


def test_a_ladder_in_csv_has_a_line_for_each_step(site: Site) -> None:
    rows = list(csv.DictReader(run(site, "asked", "--concurrency", "1:4:x2", *QUICK, "-o", "csv").stdout.splitlines()))
    assert [row["load"] for row in rows] == ["1 in flight", "2 in flight", "4 in flight"]
    assert all(float(row["rate"]) > 10 for row in rows)


@pytest.mark.parametrize(
    ("limit", "status", "found"),
    [("p50<=5s", 0, {"holds": 40.0, "fails": None}), ("p50<=1us", 8, {"holds": None, "fails": 20.0})],
)
def test_the_highest_rate_is_found_or_said_not_to_be_there(
    site: Site, limit: str, status: int, found: dict[str, float | None]
) -> None:
    long = ("--seconds", "3", "--max-seconds", "3", "--warm-up", "0.2", "--no-calibration", "--lateness", "1")
    tree = run_json(site, "asked", "--find-rate", "20:40", "--limit", limit, *long, status={status})
    assert tree["highest_rate"] == found


def test_a_rate_that_the_server_does_not_keep_is_not_the_clients_fault_and_the_one_it_keeps_is_found(
    site: Site,
) -> None:
    """It takes 20 ms for each, one after the other: 50 a second."""
    if not site.ready("sleeping"):
        serve(site, "sleeping", SLEEPING_CONFIG, SLEEPING)
    words = ("sleeping", "--no-calibration", "--lateness", "0.1", "--arrivals", "even", "--warm-up", "0")
    over = point(run_json(site, *words, "--rate", "200", "--seconds", "2", "--max-seconds", "2", "--most", "10"))
    assert over["verdict"] != "client_limited"
    assert int(str(over["held"])) > 10
    assert "waited because 10 were in flight" in str(over["reasons"])
    search = (
        "--find-rate",
        "15:240",
        "--limit",
        "p50<=300ms",
        "--within",
        "0.5",
        "--seconds",
        "1.5",
        "--max-seconds",
        "3",
    )
    found = run_json(site, *words, *search, status={0})["highest_rate"]
    assert isinstance(found, dict)
    assert 15 <= found["holds"] <= 60  # a busy host may keep less of it
    assert found["holds"] < found["fails"] <= 120


def test_a_limit_decides_the_exit_status_of_a_load(site: Site) -> None:
    words = ("asked", *QUICK, "--precision", "999", "--concurrency", "2")
    assert point(run_json(site, *words, "--limit", "p50<=9s", status={0}))["verdict"] == "valid"
    assert "does not hold" in run(site, *words, "--limit", "p50<=1us", status={8}).stdout


def test_load_acceptance_4_a_client_that_sends_later_than_its_bound_is_named(site: Site) -> None:
    """No client sends within a tenth of a microsecond."""
    one = point(run_json(site, "asked", "--rate", "200", *QUICK, "--lateness", "1e-7", status={5}))
    assert one["verdict"] == "client_limited"
    assert "the client sent late" in str(one["reasons"])


@pytest.mark.parametrize("shape", [("--concurrency", "3"), ("--rate", "200")], ids=["closed", "open"])
def test_a_count_is_exact_and_does_not_hold_the_warm_up(site: Site, shape: tuple[str, str]) -> None:
    before = succeeded(site, "asked")
    exact = ("asked", *shape, "--requests", "50", "--no-calibration", "--warm-up")
    one = point(run_json(site, *exact, "0", "--processes", "2"))
    assert succeeded(site, "asked") - before == 50
    assert int(str(one["sent"])) + one["warm_up"]["calls_found"] == 50  # type: ignore[index]
    one = point(run_json(site, *exact, "0.3"))
    assert int(str(one["sent"])) + one["warm_up"]["calls_found"] == 50  # type: ignore[index]
    assert succeeded(site, "asked") - before > 100


def test_a_trace_is_replayed_whole(site: Site, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("\n".join(str(n * n / 1600) for n in range(41)))
    before = succeeded(site, "asked")
    one = point(run_json(site, "asked", "--trace", str(tmp_path / "trace"), "--warm-up", "0", "--no-calibration"))
    assert (one["offered"], one["completed"]) == (41, 41)
    assert succeeded(site, "asked") - before == 41


def test_several_models_share_a_load_by_weight_and_their_answers_are_checked(site: Site) -> None:
    before = {name: succeeded(site, name) for name in ("asked", "other")}
    tree = run_json(site, "asked:1=3", "other", "--concurrency", "2", *QUICK, "--expected", "first", "--distinct", "4")
    one = point(tree)
    counts = {name: succeeded(site, name) - before[name] - 4 for name in before}  # but for the first answers
    assert counts["asked"] == pytest.approx(3 * counts["other"], abs=8)
    assert one["answers"] == {"checked": sum(counts.values()), "differing": 0, "differences": []}
    assert list(one["parts"]) == ["asked:1", "other"]  # type: ignore[call-overload]


def test_answers_that_are_not_the_expected_ones_are_errors_and_shown(site: Site, tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.savez(tmp_path / "samples.npz", X=rows, Y=np.where(rows == 5, 0, 3 * rows))
    data = str(tmp_path / "samples.npz")
    done = run(site, "asked", *QUICK, "--data", data, "--expected", data, "--concurrency", "1", status={3})
    assert "request 2, Y[0, 1]: 15.0, expected 0.0" in done.stdout


def test_a_stateful_model_asks_for_the_length_of_its_sequences(site: Site) -> None:
    if not site.ready("remembering"):
        serve(site, "remembering", accumulator(), ACCUMULATOR)
    assert "--sequence-length" in run(site, "remembering", status={2}).stderr
    words = ("remembering", "--sequence-length", "3:5", *QUICK)
    one = point(run_json(site, *words, "--concurrency", "2"))
    assert (one["failed"], one["transport"]) == ({}, "http2")
    assert "--sequences 16" in run(site, *words, "--rate", "50", status={2}).stderr
    assert point(run_json(site, *words, "--rate", "50", "--sequences", "4"))["failed"] == {}


def test_a_decoupled_model_is_asked_over_a_stream(site: Site, tmp_path: Path) -> None:
    if not site.ready("telling"):
        serve(site, "telling", COUNTING_CONFIG, COUNTING)
    np.savez(tmp_path / "samples.npz", COUNT=np.array([2, 0], np.int32))
    words = ("telling", "--data", str(tmp_path / "samples.npz"), *QUICK)
    assert "answers on a stream only" in run(site, *words, "--transport", "http2", status={2}).stderr
    one = point(run_json(site, *words))
    assert one["streaming"]["mean"] == 2.0  # type: ignore[index]


@pytest.mark.parametrize("how", ["inputs", "both"])
def test_tensors_are_kept_in_shared_memory_where_the_server_allows_it(site: Site, how: str) -> None:
    words = ("asked", "--shared-memory", how, *QUICK, "--concurrency", "2", "--expected", "first")
    assert "--shared-memory" not in run(site, *words, status={2}).stdout
    key = "=".join(next(iter(site.live.headers.items())))
    one = point(run_json(site, *words, "--header", key))
    assert (one["transport"], one["failed"]) == ("http2, shared memory", {})
    assert one["answers"]["checked"] > 5  # type: ignore[index]
    assert one["answers"]["differing"] == 0  # type: ignore[index]


def test_over_tls_the_certificates_are_files(make_triton: MakeTriton, tmp_path: Path) -> None:
    authority_and_client(tmp_path)
    version = tmp_path / "models" / "sleeping" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(SLEEPING)
    (version.parent / "config.pbtxt").write_text(SLEEPING_CONFIG)
    given = {"cert": "server.pem", "key": "server.key"}
    files = [f"--grpc-server-{name}={tmp_path}/{file}" for name, file in given.items()]
    secured = ("--grpc-use-ssl-mutual=1", *files, f"--grpc-root-cert={tmp_path}/authority.pem")
    live = make_triton(repository=tmp_path / "models", extra_arguments=secured)
    ours = {"root": "authority.pem", "certificate": "client.pem", "key": "client.key"}
    words = [word for name, file in ours.items() for word in (f"--tls-{name}", str(tmp_path / file))]
    done = CliRunner().invoke(load, ["sleeping", "--url", live.grpc, *words, "--requests", "20", "-o", "json"])
    one = point(json.loads(done.stdout))
    assert (one["transport"], one["failed"]) == ("grpcio over TLS", {}), done.stderr
    assert one["calibration"]["ceiling"] > 10  # type: ignore[index]


def test_a_ladder_has_a_ceiling_at_each_step_and_looks_for_the_floor_once(site: Site) -> None:
    quick = [word for word in QUICK if word != "--no-calibration"]
    tree = run_json(site, "asked", "--concurrency", "1,4", *quick)
    one, four = (point(tree, number)["calibration"] for number in range(2))
    assert isinstance(one, dict)
    assert isinstance(four, dict)
    assert (one["concurrency"], four["concurrency"]) == (1, 4)
    assert one["floor"] == four["floor"] > 0
    assert one["ceiling"] != four["ceiling"]


def test_ctrl_c_ends_the_load_and_what_was_measured_is_reported(site: Site) -> None:
    words = ["asked", "--seconds", "60", "--no-calibration", "--url", site.live.grpc, "-o", "json"]
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None
        assert "asked version 1" in process.stderr.readline()
        before = succeeded(site, "asked")
        end = time.monotonic() + 120
        while succeeded(site, "asked") - before < 1000 and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the sending processes get it too
        out, said = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    tree = json.loads(out)
    assert (process.returncode, tree["status"], tree["interrupted"]) == (130, 130, True), said
    assert match(tree)[1] == []
    assert tree["points"][0]["completed"] > 5
    assert tree["points"][0]["failed"] == {}


def test_on_a_terminal_a_line_shows_how_it_goes(site: Site) -> None:
    mine, theirs = pty.openpty()
    words = [
        "asked",
        "--seconds",
        "6",
        "--max-seconds",
        "6",
        "--concurrency",
        "4",
        "--no-calibration",
        "--url",
        site.live.grpc,
    ]
    environment = {**os.environ, "COLUMNS": "140"}
    process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(mine, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(mine)
        process.wait(90)
    text = shown.decode()
    assert re.search(r"\r\x1b\[K4 in flight  [1-6] s of 6 +[\d,]+/s  p99 [\d.e+]+ ms", text), text
    assert "known: rate to" in text
    assert text.endswith("\r\x1b[K")


def test_a_model_that_is_not_there_is_refused_with_those_that_are(site: Site) -> None:
    done = run(site, "askd", status={4})
    assert "does not serve askd" in done.stderr
    assert "--header KEY=VALUE" in done.stderr
    key = "=".join(next(iter(site.live.headers.items())))
    done = run(site, "askd", "--header", key, status={4})
    assert re.search(r"next: ready are .*asked", done.stderr)
    assert "asked version 9" in run(site, "asked:9", status={4}).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "9"], "it takes 8 at the most"),
        (["--shape", "Z:2"], "there is no input 'Z'"),
        (["--range", "Z:0:1"], "there is no input 'Z'"),
        (["--shape", "X:3"], "has the shape [2], not [3]"),
        (["--sequence-length", "3"], "without a stateful model"),
        (["--data", "/nowhere.npz"], "/nowhere.npz cannot be read"),
        (["--expected", "/nowhere.npz"], "/nowhere.npz cannot be read"),
    ],
)
def test_what_the_model_does_not_take_is_refused_before_anything_is_sent(
    site: Site, words: list[str], said: str
) -> None:
    before = succeeded(site, "asked")
    assert said in run(site, "asked", *words, status={2}).stderr
    assert succeeded(site, "asked") == before


def test_a_port_that_is_not_grpcs_is_named(site: Site) -> None:
    done = CliRunner().invoke(load, ["asked", "--url", site.live.http])
    assert f"no Triton answers at {site.live.http}" in done.stderr
    assert done.exit_code == 9


def test_the_library_takes_three_lines(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""from clients.load import Options, run
if __name__ == "__main__":
    options = Options(models=("asked",), url="{site.live.grpc}", concurrency="1,2", seconds=1, max_seconds=1, calibration=False)
    print([(point.name, point.measured.rate.value > 10) for point in run(options).points])
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert (done.stdout, done.stderr) == ("[('1 in flight', True), ('2 in flight', True)]\n", "")
