# Acceptance 3: a repository with an ensemble, labels and `configs/` is adopted as it lies there, changed and rolled back.
from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from clients.control import contexts
from clients.control.contexts import Context
from controlplane.api.app import create_app
from controlplane.cli.app import main
from controlplane.errors import ChangeBlocked
from controlplane.wiring import build_services
from tests.live.installation import ENV, Installation
from tests.live.onnx_graphs import parse
from tests.live.servers import LiveTriton

LABELS = b"cat\ndog\nfish\nbird\n"
_names = itertools.count()


@dataclass
class Site:
    """A repository in which `double` and `classify` make the ensemble `pipe`, and the command line beside it. `prefix`
    is in front of each name, because the server is shared between tests."""

    at: Installation
    client: InferenceServerClient
    prefix: str
    capsys: pytest.CaptureFixture[str]

    def home(self, model: str) -> Path:
        return self.at.triton.repository / self.name(model)

    def name(self, model: str) -> str:
        return f"{self.prefix}_{model}"

    def run(self, *arguments: str, status: int = 0) -> str:
        code = main(list(arguments))
        said = self.capsys.readouterr()
        assert code == status, said.err
        return said.err if status else said.out

    def label(self, model: str = "pipe") -> str:
        """What Triton calls the highest of four scores, of which the second is the highest."""
        x = InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.array([[0, 3, 1, 2]], np.float32))
        asked = InferRequestedOutput("scores", class_count=1)
        (found,) = self.client.infer(self.name(model), [x], outputs=[asked]).as_numpy("scores").flatten()
        return str(found.decode().rpartition(":")[2])

    def apply(self, *changes: int) -> list[str]:
        """Approve and apply, in this order; the states they end in."""
        ended = []
        for number in changes:
            view = self.at.changes.show(self.at["author"], number)
            ended.append(self.at.finish(self.at.start(view)).request.state.value)
        return ended

    def put(self) -> None:
        tensor = "data_type: TYPE_FP32 dims: [ 4 ]"
        for model, factor, output in (("double", 2.0, "y"), ("classify", 1.0, "scores")):
            graph = parse(
                f"m (float[N,4] x) => (float[N,4] {output}) <float f = {{{factor}}}> {{ {output} = Mul(x, f) }}"
            )
            (self.home(model) / "1").mkdir(parents=True)
            (self.home(model) / "1/model.onnx").write_bytes(graph.SerializeToString())
            labels = ' label_filename: "labels.txt"' if model == "classify" else ""
            (self.home(model) / "config.pbtxt").write_text(
                f'backend: "onnxruntime" max_batch_size: 8 input [ {{ name: "x" {tensor} }} ] '
                f'output [ {{ name: "{output}" {tensor}{labels} }} ] instance_group [ {{ kind: KIND_CPU count: 1 }} ]'
            )
        (self.home("classify") / "labels.txt").write_bytes(LABELS)
        (self.home("classify") / "configs").mkdir()
        (self.home("classify") / "configs/small.pbtxt").write_text("max_batch_size: 1")
        (self.home("pipe") / "1").mkdir(parents=True)
        steps = [("double", "x", "x", "y", "doubled"), ("classify", "x", "doubled", "scores", "scores")]
        (self.home("pipe") / "config.pbtxt").write_text(
            f'platform: "ensemble" max_batch_size: 8 input [ {{ name: "x" {tensor} }} ] '
            f'output [ {{ name: "scores" {tensor} }} ] ensemble_scheduling {{ step [ '
            + ", ".join(
                f'{{ model_name: "{self.name(model)}" model_version: -1 input_map {{ key: "{i}" value: "{of}" }} '
                f'output_map {{ key: "{o}" value: "{to}" }} }}'
                for model, i, of, o, to in steps
            )
            + " ] }"
        )
        self.at.load(self.name("pipe"))  # Triton loads the members with it


@pytest.fixture
def site(
    at: Installation,
    tmp_path: Path,
    triton: LiveTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    app = create_app(build_services(at.settings, at.storage), max_artifact_bytes=2**20)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    for name in ("TRITONCTL_TOKEN", "TRITONCTL_CONTEXT", "TRITONCTL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITONCTL_HOME", str(tmp_path / "client"))
    token = at.access.issue(at["admin"], "author", "", None).secret
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    contexts.put(contexts.context_path(), "author", Context(url, token), use=True)
    with InferenceServerClient(triton.grpc) as client:
        site = Site(at, client, f"adopt{next(_names)}", capsys)
        site.put()
        yield site
        for model in ("pipe", "classify", "double"):
            client.unload_model(site.name(model), headers=triton.headers)
    server.should_exit = True
    thread.join()


def adopt(site: Site) -> list[dict[str, object]]:
    only = [option for model in ("double", "classify", "pipe") for option in ("--model", site.name(model))]
    said = site.run("model", "adopt", str(site.at.triton.repository), "-e", ENV, *only, "-o", "json")
    found = json.loads(said)
    assert isinstance(found, list)
    return found


def test_acceptance_3_an_ensemble_with_labels_is_adopted_changed_and_rolled_back(site: Site, tmp_path: Path) -> None:
    at, kept = site.at, [path for path in site.at.triton.repository.rglob("*") if path.name != "config.pbtxt"]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept if path.is_file()}
    assert site.label() == "dog"

    made = adopt(site)
    assert [(row["model"], row["versions"], row["opaque"], row["message"]) for row in made] == [
        (site.name("classify"), [1], False, "open"),
        (site.name("double"), [1], False, "open"),
        (site.name("pipe"), [1], True, "open"),
    ]
    with pytest.raises(ChangeBlocked, match=r"its member .* is not deployed"):
        site.apply(int(str(made[2]["change"])))
    assert site.apply(*(int(str(row["change"])) for row in made)) == ["applied"] * 3
    with pytest.raises(ChangeBlocked, match=r"the ensemble .* uses it"):
        at.deploy(site.name("double"), undeploy=True)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    assert site.label() == "dog"
    assert {at.drift(site.name(model)) for model in ("double", "classify", "pipe")} == {()}
    (fact,) = [each for each in at.audit(("model", site.name("classify"))) if each.action == "model.adopted"]
    assert fact.details["source"] == str(site.home("classify"))
    assert [(row["change"], row["message"]) for row in adopt(site)] == [(None, "already adopted")] * 3

    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/labels.txt").write_bytes(LABELS.replace(b"dog", b"wolf"))
    wish = ("change", "propose", site.name("classify"), "-e", ENV, "--beside", str(tmp_path / "beside"))
    change = json.loads(site.run(*wish, "--reason", "wolves were seen", "-o", "json"))
    assert [row["path"] for row in change["plan"]["diff"]] == ['beside["configs/small.pbtxt"]', 'beside["labels.txt"]']
    assert change["plan"]["reload_class"] == "reload"
    assert site.apply(change["summary"]["id"]) == ["applied"]
    assert (site.label("classify"), at.drift(site.name("classify"))) == ("wolf", ())
    assert not (site.home("classify") / "configs").exists()

    back = at.rollback(site.name("classify"))
    assert (back.request.state.value, site.label("classify")) == ("applied", "dog")
    assert (site.home("classify") / "labels.txt").read_bytes() == LABELS
    assert (site.home("classify") / "configs/small.pbtxt").read_text() == "max_batch_size: 1"
    assert at.drift(site.name("classify")) == ()


def test_acceptance_3_planted_labels_are_drift_and_put_back_by_a_change(site: Site) -> None:
    made = adopt(site)
    assert site.apply(*(int(str(row["change"])) for row in made)) == ["applied"] * 3
    model, labels = site.name("classify"), site.home("classify") / "labels.txt"
    labels.write_bytes(LABELS.replace(b"dog", b"ape"))
    (labels.parent / "notes.txt").write_bytes(b"mine")
    (site.home("pipe") / "1/planted.txt").write_bytes(b"")
    assert site.at.drift(model) == ("does not belong: notes.txt; has other bytes: labels.txt",)
    (drift,) = site.at.drift(site.name("pipe"))
    assert drift.startswith("version 1 has other bytes")
    for name in (model, site.name("pipe")):
        assert site.at.reconcile(name).request.state.value == "applied"
        assert site.at.drift(name) == ()
    assert (labels.read_bytes(), site.label("classify")) == (LABELS, "dog")
    assert list((site.home("pipe") / "1").iterdir()) == []


def test_an_adoption_that_fails_leaves_the_files_beside_the_config(site: Site, tmp_path: Path) -> None:
    made = {str(row["model"]): int(str(row["change"])) for row in adopt(site)}
    number, home = made[site.name("classify")], site.home("classify")
    broken, beside = tmp_path / "broken.pbtxt", tmp_path / "beside"
    broken.write_text((home / "config.pbtxt").read_text() + ' model_operations { op_library_filename: "absent.so" }')
    (beside / "configs").mkdir(parents=True)
    for name in ("labels.txt", "configs/small.pbtxt"):
        (beside / name).write_bytes((home / name).read_bytes())
    wish = ("--version", "1", "--config", str(broken), "--beside", str(beside))
    site.run("change", "replan", str(number), *wish, "--reason", "it will not load")
    assert site.apply(number) == ["undone"]
    assert (home / "labels.txt").read_bytes() == LABELS
    assert (site.label("classify"), site.label()) == ("dog", "dog")
