# Several models in one run, and answers that are checked: a model that is wrong now and then is found out.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.inference import InferenceClient, TensorSpec
from clients.load.checks import Tolerance
from clients.load.errors import LoadInputError
from clients.load.expectations import answers_from_npz, first_pass, shares_by_part
from clients.load.measure import Limits, Load, Measurement, Target, measure
from clients.load.messages import from_npz, message
from clients.load.schedule import Curve
from clients.load.traffic import Part, Traffic
from tests.live.python_models import WRONG, WRONG_CONFIG, serve
from tests.live.scaling import Site, config, open_site
from tests.live.servers import MakeTriton

SHORT = Limits(seconds=1.5, cap=1.5, warm_up=0.2)
X, Y = TensorSpec("X", "FP32", (-1, 2)), TensorSpec("Y", "FP32", (-1, 2))
ROWS = np.random.default_rng(3).uniform(1, 9, (24, 2)).astype(np.float32)


@pytest.fixture
def site(make_triton: MakeTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config())
    opened.load("m")
    yield opened
    opened.server.close()


def target(site: Site) -> Target:
    host, port = site.live.grpc.split(":")
    return Target(host, int(port))


def part(model: str, **options: object) -> Part:
    rows = tuple(message(model, {"X": ROWS[n : n + 1]}, version=None, parameters={}) for n in range(len(ROWS)))
    return Part(model, rows, **options)  # type: ignore[arg-type]


def taught(site: Site, traffic: Traffic) -> Traffic:
    with InferenceClient(site.live.grpc) as client:
        return first_pass(client, traffic, deadline_seconds=10)


@pytest.mark.parametrize("load", [Load(concurrency=6), Load(curve=Curve.flat(400))], ids=["closed", "open"])
def test_weights_hold_and_each_model_has_its_results_and_its_servers_shares(site: Site, load: Load) -> None:
    site.write("other", {1: 5, 2: 7}, config(versions=(1, 2)))
    site.load("other")
    parts = (part("m", weight=3), part("other", version=1), part("other", version=2, weight=2))
    lost = message("other", {"X": ROWS[:1]}, version=1, parameters={})
    wrong = message("other", {"nobody": ROWS[:1]}, version=1, parameters={})
    parts = (parts[0], Part("other", (lost, wrong), version=1), parts[2])
    traffic = Traffic(parts)
    with InferenceClient(site.live.grpc) as client:
        before = shares_by_part(client, traffic)
        measured = measure(target(site), traffic, load, SHORT, processes=2)
        shares = {label: counted - before[label] for label, counted in shares_by_part(client, traffic).items()}
    owners = traffic.owners[measured.records[:, 4]]
    counts = np.bincount(owners, minlength=3)
    assert np.abs(counts - len(owners) * np.array([3, 1, 2]) / 6).max() <= 6, (
        "each process is within a cycle of the weights"
    )
    good = np.bincount(owners[measured.records[:, 3] == 0], minlength=3)
    assert {label: share.succeeded for label, share in shares.items()} == dict(
        zip(("m", "other:1", "other:2"), good.tolist(), strict=True)
    ), "the counts of the server, model by model, over the whole run"
    seen = measured.parts
    assert sum(one.sent for one in seen.values()) == measured.sent
    assert sum(one.completed for one in seen.values()) == measured.completed
    assert (seen["m"].failed, seen["other:2"].failed) == ({}, {})
    assert (
        seen["other:1"].failed
        == measured.failed
        == {"INVALID_ARGUMENT": seen["other:1"].sent - seen["other:1"].completed}
    )
    assert seen["other:1"].completed == pytest.approx(seen["other:1"].sent / 2, abs=3)
    assert sum(one.rate.value for one in seen.values()) == pytest.approx(measured.rate.value, rel=1e-6)
    for one in seen.values():
        assert 0 < one.latency.sent[50.0].value <= one.latency.sent[99.0].value


@pytest.mark.parametrize("how", ["perturbs", "swaps"])
def test_a_batch_that_mixes_its_rows_is_found_out(site: Site, how: str) -> None:
    """From its 40th request on, the model answers one in ten with half too much, or with its neighbour's answer in the batch
    (alone in a batch: half too much)."""
    serve(site, "w", WRONG_CONFIG, WRONG.replace("HOW", repr(how)))
    traffic = taught(site, Traffic((part("w"), part("m"))))
    measured = measure(target(site), traffic, Load(concurrency=6), replace(SHORT, count=400))
    assert measured.verdict == "errors"
    assert measured.failed == {}
    wrong = int((traffic.owners[measured.records[:, 4]] == 0).sum())
    assert (measured.checked, measured.differing) == (len(measured.records), measured.parts["w"].differing)
    assert measured.parts["m"].differing == 0
    assert 0.05 * wrong < measured.differing <= 0.1 * wrong + 1
    assert measured.reasons[0] == (
        f"{measured.differing} answers differ from what was expected, of {measured.checked} that were checked"
    )
    assert len(measured.differences) == 5
    for found in measured.differences:
        row = ROWS[found.request]
        assert (found.part, found.output, found.index) == ("w", "Y", (0, 0))
        assert found.expected == repr(float(row[0] * 2))
        wanted = [row[0] * 2 + 0.5] if how == "perturbs" else [*(ROWS[:, 0] * 2), row[0] * 2 + 0.5]
        assert any(found.got == repr(float(value)) for value in wanted)


def test_answers_are_expected_from_a_file_beside_the_samples(site: Site, tmp_path: Path) -> None:
    def run(factor: float, **tolerance: float) -> Measurement:
        np.savez(tmp_path / "samples.npz", X=ROWS, Y=ROWS * np.float32(factor))
        requests = from_npz(tmp_path / "samples.npz", [X], batch=2, batched=True)
        answers = answers_from_npz(tmp_path / "samples.npz", [Y], batch=2, batched=True)
        bodies = tuple(message("m", inputs, version=None, parameters={}) for inputs in requests)
        traffic = Traffic((Part("m", bodies, expected=answers),), tolerance=Tolerance(**tolerance))
        return measure(target(site), traffic, Load(concurrency=4), Limits(seconds=0.6, cap=0.6, warm_up=0.1))

    right = run(3)
    assert (right.checked, right.differing) == (len(right.records), 0)
    assert run(3.01, rtol=0.01).differing == 0
    off = run(3.01)
    assert off.differing == off.checked == len(off.records)
    assert off.verdict == "errors"
    with pytest.raises(LoadInputError) as caught:
        answers_from_npz(tmp_path / "samples.npz", [TensorSpec("Z", "FP32", (-1, 2))], batch=1, batched=True)
    assert caught.value.hint == "the model answers Z"


def test_a_request_without_an_answer_ends_the_first_pass_and_says_which(site: Site) -> None:
    wrong = message("m", {"nobody": ROWS[:1]}, version=None, parameters={})
    traffic = Traffic((Part("m", (*part("m").messages[:2], wrong)),))
    with pytest.raises(LoadInputError) as caught:
        taught(site, traffic)
    assert caught.value.message.startswith("request 2 of m has no answer to compare with: INVALID_ARGUMENT: ")


def test_nothing_is_collected_when_nothing_is_checked(site: Site) -> None:
    measured = measure(target(site), Traffic((part("m"),)), Load(concurrency=2), SHORT)
    assert (measured.checked, measured.differing, measured.differences, measured.parts) == (0, 0, (), {})
