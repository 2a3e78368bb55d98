# The report of a sweep as one HTML page that needs nothing else: no script, no font, no picture from anywhere.
from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from controlplane.reports.charts.chart import Absent, Chart
from controlplane.reports.charts.every import charts
from controlplane.reports.charts.rendering import inline_svg
from controlplane.reports.html import Markup, inside, tag
from controlplane.reports.page_tables import blocks_section, evidence_section, measured_on, trials_table
from controlplane.reports.standings import Findings, fields, items
from controlplane.reports.summary import Goal, Summary
from controlplane.reports.theme import chart_rules, variables
from controlplane.reports.wording import duration, ends, figure_title, moment, number, parameters, said, unit

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser itself keeps the page from loading anything."""
_MARKS = {"met": ("✓", "met"), "missed": ("✗", "missed"), "cannot tell": ("?", "cannot")}


def page(findings: Findings) -> str:
    """Raises RuntimeUnavailable when the charts cannot be drawn."""
    summary = Summary(findings)
    drawn = charts(findings)
    sections = [
        ("answer", "The answer", _answer(findings, summary)),
        ("charts", "Charts", _charts(drawn)),
        ("search", "What was searched, and why", _search(findings)),
        ("plan", "Plan", _plan(findings, summary)),
        ("trials", "Every trial", trials_table(findings)),
        ("environment", "Measured on", measured_on(findings)),
        ("evidence", "Evidence and seeds", inside(evidence_section(findings), blocks_section(findings))),
    ]
    style = "\n".join((variables(), (files(__package__) / "page.css").read_text("utf-8"), chart_rules()))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{summary.title}: report"),
        tag("style", Markup(style)),
    )
    contents = tag("nav", tag("ul", [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections]),
                   aria_label="Contents")  # fmt: skip
    body = tag(
        "body",
        tag("header", _title(findings, summary), contents, class_="top"),
        tag(
            "main",
            _card(findings, summary),
            [tag("section", tag("h2", title, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")
             for name, title, content in sections],
        ),
        tag("footer", f"Made by tritonctl sweep report from {'a capsule' if findings.material.capsule else 'the rows'} of the sweep. "
            "This file loads nothing from anywhere."),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _title(findings: Findings, summary: Summary) -> Markup:
    sweep = findings.material.sweep
    lasted = f", measured for {duration(summary.lasted)}" if summary.lasted else ""
    return inside(
        tag("h1", summary.title, tag("span", sweep.state.value, class_=f"state {sweep.state.value}")),
        tag("p", findings.material.description) if findings.material.description else None,
        tag("p", f"Started by {sweep.started_by} at {moment(sweep.created_at)}{lasted}, bench {sweep.bench}.", class_="muted small"),
    )  # fmt: skip


def _card(findings: Findings, summary: Summary) -> Markup:
    """The one page that ties goal to outcome."""
    big = [
        tag(
            "li",
            tag("b", number(interval.value), " ", tag("small", unit(name))),
            tag("span", figure_title(name)),
            tag("span", ends(interval)),
        )
        for name, interval in summary.numbers
    ]
    return tag(
        "div",
        tag("section", tag("h2", "Goal"), _goals(summary.goals), aria_label="Goal"),
        tag(
            "section",
            tag("h2", "Outcome"),
            tag("p", summary.outcome, class_="choice"),
            tag("ul", big, class_="numbers") if big else None,
            tag("ul", [tag("li", one) for one in summary.gains], class_="plain") if summary.gains else None,
            tag("p", summary.reasons[0]) if summary.reasons and findings.chosen is None else None,
            tag("p", summary.effort, class_="muted small"),
            aria_label="Outcome",
        ),
        class_="card",
    )


def _goals(goals: Sequence[Goal]) -> Markup:
    if not goals:
        return tag("p", "The model has no objectives: every figure counts alike.")
    rows = []
    for goal in goals:
        mark, kind = _MARKS.get(goal.result, ("–", "muted"))
        rows.append(
            tag(
                "tr",
                tag("th", goal.asked, tag("span", f" {goal.name}" + (f", for {goal.stakeholder}" if goal.stakeholder else "")
                    + ("" if goal.hard else ", a wish"), class_="muted small"), scope="row"),
                tag("td", f"{mark} {goal.result or 'no answer'}", class_=f"result {kind}"),
                tag("td", goal.reason, class_="wide"),
            )
        )  # fmt: skip
    return tag("div", tag("table", tag("tbody", rows), class_="goals"), class_="scroll")


def _answer(findings: Findings, summary: Summary) -> Markup:
    chosen = findings.chosen
    names = [name for name, _ in summary.numbers]
    rows = []
    for trial in findings.front:
        figures = findings.figures.get(trial.number, {})
        said_of = ("base config" if trial.base else "") + (": " if trial.base and trial.parameters else "")
        rows.append(
            tag(
                "tr",
                tag("th", trial.name, scope="row"),
                tag("td", trial.version, class_="number"),
                tag("td", said_of + parameters(trial.parameters), class_="wide"),
                [tag("td", said(figures[name], unit(name)) if name in figures else "–", class_="number") for name in names],
                class_="chosen" if chosen and trial.number == chosen.number else None,
            )
        )  # fmt: skip
    intervals = " Intervals are of 95 %."
    if findings.held:
        intervals = (
            " Of a highest rate, what held and what did not; of its latencies the least and the most of its blocks."
        )
    front = tag(
        "table",
        tag("caption", "The front: none of these is shown to be dominated. The preferred first.", intervals),
        tag("thead", tag("tr", tag("th", "trial", scope="col"), tag("th", "version", scope="col", class_="number"),
                         tag("th", "parameters", scope="col"),
                         [tag("th", figure_title(name), scope="col", class_="number") for name in names])),
        tag("tbody", rows),
    )  # fmt: skip
    commands = tag("pre", tag("code", "\n".join(summary.next_commands)), aria_label="Next commands")
    return inside(
        tag("p", tag("strong", summary.outcome)),
        tag("ul", [tag("li", one) for one in summary.reasons], class_="plain") if summary.reasons else None,
        tag("div", front, class_="scroll") if rows else None,
        tag("p", "To be read with it:") if summary.notes else None,
        tag("ul", [tag("li", one) for one in summary.notes], class_="plain") if summary.notes else None,
        tag("p", "Next:"),
        commands,
    )


def _charts(drawn: Sequence[Chart | Absent]) -> Markup:
    found: list[Markup] = []
    absent = [one for one in drawn if isinstance(one, Absent)]
    for one in drawn:
        if isinstance(one, Chart):
            picture = inline_svg(one).replace(
                "<svg ", f'<svg role="img" aria-labelledby="chart-{one.name}-title chart-{one.name}-said" ', 1
            )
            found.append(
                tag(
                    "figure",
                    tag("figcaption", tag("h3", one.title, id=f"chart-{one.name}-title"), tag("p", one.caption, id=f"chart-{one.name}-said")),
                    tag("div", Markup(picture), class_="chart"),
                    tag("details", tag("summary", "The numbers in words"), tag("p", one.alt), class_="screen"),
                    id=f"chart-{one.name}",
                )
            )  # fmt: skip
    if absent:
        said_of = [tag("li", tag("strong", one.title), f": {one.reason}.") for one in absent]
        found.append(tag("p", "Not drawn, because there is nothing to draw:"))
        found.append(tag("ul", said_of, class_="plain"))
    return inside(found)


def _search(findings: Findings) -> Markup:
    sweep, trials = findings.material.sweep, findings.material.trials
    reasons = [fields(one) for one in items(sweep.space.get("reasons"))]
    versions = sorted({trial.version for trial in trials})
    base = (
        "configs generated from the model"
        if sweep.environment is None
        else f"the config of revision {sweep.base_revision} in {sweep.environment}"
    )
    shape = next(
        (f"{name.replace('_', ' ')} {value}" for name, value in sweep.load.items() if name not in _NO_SHAPE), ""
    )
    rows = [
        tag("tr", tag("th", tag("code", str(one.get("path"))), scope="row"), tag("td", str(one.get("sentence"))))
        for one in reasons
    ]
    return inside(
        tag(
            "dl",
            _fact("versions", ", ".join(map(str, versions)) or "none"),
            _fact("base", base),
            _fact("choices", f"{sweep.space.get('choices', len(trials))} in the space, {len(trials)} looked at"),
            _fact("load", f"{shape}: {sweep.load.get('reason', '')}".strip(": ")),
            class_="facts",
        ),
        tag("div", tag("table", tag("caption", "Why each place of the config is searched, or is not."),
                       tag("thead", tag("tr", tag("th", "place", scope="col"), tag("th", "why", scope="col"))),
                       tag("tbody", rows)), class_="scroll") if rows else None,
    )  # fmt: skip


_NO_SHAPE = frozenset({"process", "rows", "reason", "finds_rate"})


def _plan(findings: Findings, summary: Summary) -> Markup:
    sweep = findings.material.sweep
    columns = ("candidates", "turns", "steps", "milliseconds", "loads")
    rows = [
        tag("tr", tag("th", str(fields(one).get("name")), scope="row"),
            [tag("td", str(fields(one).get(column, "")), class_="number") for column in columns])
        for one in items(sweep.plan.get("stages"))
    ]  # fmt: skip
    search = fields(sweep.spec.get("search"))
    estimate = sweep.plan.get("seconds")
    return inside(
        tag(
            "dl",
            _fact("method", str(sweep.plan.get("method", ""))),
            _fact("seed", str(search.get("seed", ""))),
            _fact("difference that matters", f"{search.get('margin_percent', '')} %"),
            _fact("time", f"estimated {duration(int(str(estimate)))}" + (f", took {duration(summary.lasted)}" if summary.lasted else ""))
            if estimate is not None else None,
            class_="facts",
        ),
        tag("div", tag("table", tag("caption", "Stages, at most: candidates, blocks of each, and how long a block is."),
                       tag("thead", tag("tr", tag("th", "stage", scope="col"),
                                        [tag("th", "ms a block" if column == "milliseconds" else column, scope="col", class_="number")
                                         for column in columns])),
                       tag("tbody", rows)), class_="scroll") if rows else None,
        tag("ul", [tag("li", str(note)) for note in items(sweep.plan.get("notes"))], class_="plain"),
    )  # fmt: skip


def _fact(name: str, value: str) -> Markup:
    return inside(tag("dt", name), tag("dd", value))
