# The page of a report: whole, alone, escaped, the same numbers as the rows, whatever became of the sweep.
from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from controlplane.domain.sweep_spec import SweepSpec
from controlplane.domain.sweeps import SweepState
from controlplane.reports.page import page
from controlplane.reports.page_tables import evidence_section
from controlplane.reports.standings import Findings
from controlplane.reports.wording import number
from tests.unit.reports import synthetic

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
VOID = {"meta", "br", "hr", "wbr", "image"}


class Reader(HTMLParser):
    """Elements with their attributes, the text, and whether every element is closed in order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data + " "


@pytest.fixture(scope="session")
def ladder_page(ladder: Findings) -> str:
    return page(ladder)


@pytest.fixture(scope="session")
def rising_page(rising: Findings) -> str:
    return page(rising)


@pytest.fixture
def document(findings: Findings, request: pytest.FixtureRequest) -> str:
    name = "ladder_page" if findings is request.getfixturevalue("ladder") else "rising_page"
    return str(request.getfixturevalue(name))


def test_it_loads_nothing(document: str) -> None:
    read = Reader(document)
    assert not re.findall(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}|@import|url\(", document)
    assert {tag for tag, _ in read.elements} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "img",
        "base",
        "form",
    } == set()
    for tag, attributes in read.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                assert (value or "").startswith("#"), (tag, name, value)
    policies = [
        attributes for tag, attributes in read.elements if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert [policy["content"] for policy in policies] == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ]


def test_it_is_well_formed_and_every_reference_leads_somewhere(document: str) -> None:
    read = Reader(document)
    assert (read.open, read.wrong) == ([], [])
    ids = Counter(str(attributes["id"]) for _, attributes in read.elements if attributes.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    referred = [str(attributes["href"])[1:] for _, attributes in read.elements if attributes.get("href")]
    for _, attributes in read.elements:
        referred += str(attributes.get("aria-labelledby") or "").split()
    assert set(referred) - set(ids) == set()


def test_who_cannot_see_it_is_told(document: str) -> None:
    read = Reader(document)
    html = dict(read.elements)["html"]
    assert html["lang"] == "en"
    pictures = [attributes for tag, attributes in read.elements if tag == "svg"]
    assert len(pictures) >= 5
    assert all(picture["role"] == "img" and picture["aria-labelledby"] for picture in pictures)
    assert read.text.count("The numbers in words") == len(pictures)
    heads = [attributes for tag, attributes in read.elements if tag == "th"]
    assert all(head.get("scope") in {"row", "col"} for head in heads)


def test_every_section_is_there(findings: Findings, document: str) -> None:
    text = Reader(document).text
    for part in ("Goal", "Outcome", "The answer", "Charts", "What was searched, and why", "Plan", "Every trial", "Measured on",
                 "Evidence and seeds"):  # fmt: skip
        assert part in text
    sweep = findings.material.sweep
    for said in (sweep.evidence, sweep.spec_digest, "the mobile app", "p99 latency at most 40 ms", "Example CPU @ 2.60GHz", "onnxruntime 1.22.1",
                 "it is the same.", "tritonctl audit verify", "the config of revision 5 in prod", "0, 500 and 2000, as the spec says"):  # fmt: skip
        assert str(said) in text, said


def test_every_trial_is_in_it_with_what_became_of_it(findings: Findings, document: str) -> None:
    text = Reader(document).text
    for trial in findings.material.trials:
        assert f" {trial.name} " in text
        for reason in trial.refused:
            assert reason in text
        if trial.failure:
            assert trial.failure in text
            assert trial.log.strip() in text
        if trial.fates and trial.number not in {one.number for one in findings.front}:
            assert str(trial.fates[-1]["reason"]) in text


def test_its_numbers_are_those_of_the_rows(findings: Findings, document: str) -> None:
    text = Reader(document).text
    assert findings.chosen is not None
    for name, interval in findings.figures[findings.chosen.number].items():
        if " at " not in name and name in {"latency_ms p99", "throughput", "sustainable_rate"}:
            assert f" {number(interval.value)} " in text
            assert f"{number(interval.low)} to {number(interval.high)}" in text
    for one in findings.material.measurements:
        assert f" {one.order.seed} " in text
    assert f"All {len(findings.material.measurements)} blocks" in text


def test_rows_that_were_changed_show(ladder: Findings) -> None:
    material = ladder.material
    first, *rest = material.measurements
    other = Findings(replace(material, measurements=(replace(first, completed=first.completed + 1), *rest)))
    text = Reader(evidence_section(other)).text
    assert f"it is {other.material.digest_now}: they are not the rows" in text
    assert "it is the same." not in text


def test_the_page_of_a_capsule_says_how_to_check_that_and_nothing_of_here(rising: Findings) -> None:
    text = Reader(page(Findings(replace(rising.material, capsule="x y.capsule")))).text
    assert "tritonctl sweep replay 'x y.capsule' --verify" in text
    assert "Made by tritonctl sweep report from a capsule" in text
    for of_here in ("audit list", "audit verify", "sweep propose", "sweep show", "--env"):
        assert of_here not in text, of_here


def test_what_people_wrote_is_text_and_nothing_else(ladder: Findings) -> None:
    material = ladder.material
    trials = tuple(
        replace(trial, base=False, parameters={**trial.parameters, EVIL: EVIL}, failure=trial.failure and EVIL, log=EVIL,
                refused=trial.refused and (EVIL,), fates=tuple({**fate, "fate": EVIL, "reason": EVIL} for fate in trial.fates))
        for trial in material.trials
    )  # fmt: skip
    objectives = tuple({**one, "name": EVIL, "stakeholder": EVIL} for one in material.sweep.objectives)
    measurements = tuple(replace(one, reasons=(EVIL,), failure=EVIL) for one in material.measurements)
    sweep = replace(material.sweep, model=EVIL, message=EVIL, started_by=EVIL, bench=EVIL, environment=EVIL, objectives=objectives,
                    space={"choices": EVIL, "reasons": [{"path": EVIL, "sentence": EVIL}]},
                    plan={**material.sweep.plan, "notes": [EVIL]},
                    answer={**(material.sweep.answer or {}), "reason": EVIL, "because": [EVIL], "notes": [EVIL], "unseen": [EVIL]})  # fmt: skip
    evil = replace(material, sweep=sweep, trials=trials, measurements=measurements, description=EVIL)
    read = Reader(page(Findings(evil)))
    assert {tag for tag, _ in read.elements} & {"script", "img"} == set()
    assert (read.open, read.wrong) == ([], [])
    assert read.text.count("<script>") > 20


@pytest.mark.parametrize(
    ("state", "message", "said"),
    [
        (SweepState.QUEUED, "", "There is no answer yet: the sweep is queued."),
        (SweepState.FAILED, "the bench did not come up: port 8001 is taken", "There is no answer: the sweep failed."),
        (SweepState.CANCELLED, "cancelled by maria", "There is no answer: the sweep was cancelled."),
    ],
)
def test_a_sweep_without_an_answer_has_a_page_that_says_why(state: SweepState, message: str, said: str) -> None:
    text = Reader(page(Findings(synthetic.queued(state, message)))).text
    assert said in text
    assert (message[:1].upper() + message[1:]) in text
    assert text.count(" not measured ") == 3  # each candidate that is not refused
    assert "Not drawn, because there is nothing to draw:" in text
    assert "No block was measured." in text
    assert "nothing is sealed yet" in text


def test_a_sweep_that_was_cancelled_shows_what_it_had(ladder: Findings) -> None:
    spec = SweepSpec("digits", (3, 4), load=synthetic.LADDER)
    found = Findings(synthetic.searched(spec, 6, (synthetic.SNAPPY,), rounds=1))
    text = Reader(page(found)).text
    assert "There is no answer: the sweep was cancelled." in text
    assert "Cancelled by maria." in text
    assert "Throughput of each trial" in text
    assert found.points
