# The one page that ties the goal of a sweep to its outcome; what it says, and as Markdown.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from shlex import quote

from clients.load.statistics import Interval
from controlplane.domain.canonical import Json
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_compare import compared
from controlplane.domain.sweep_figures import RATE, THROUGHPUT
from controlplane.domain.sweep_search import Met, figure_name, finding
from controlplane.domain.sweep_search import Trial as Seen
from controlplane.domain.sweep_spec import spec_from_json
from controlplane.domain.sweeps import ACTIVE, SweepState
from controlplane.reports.points import step_words
from controlplane.reports.standings import Findings, Place, fields, items
from controlplane.reports.wording import (
    counted,
    duration,
    ends,
    figure_title,
    listed,
    moment,
    more_is_better,
    objective,
    parameters,
    said,
    times,
    unit,
)


@dataclass(frozen=True, slots=True)
class Goal:
    """One objective and what became of it. `result` is `met`, `missed` or `cannot tell`; of a wish `met` says that its value is as good
    as wished. Empty: there is nothing to hold it against."""

    name: str
    asked: str
    stakeholder: str
    hard: bool
    result: str
    reason: str


@dataclass(frozen=True)  # no slots: what is derived is kept
class Summary:
    findings: Findings

    @property
    def title(self) -> str:
        sweep = self.findings.material.sweep
        return f"Sweep {sweep.id} of {sweep.model}"

    @cached_property
    def outcome(self) -> str:
        """In one sentence."""
        sweep, chosen = self.findings.material.sweep, self.findings.chosen
        if chosen is not None:
            said_of = "the base config" if chosen.base else parameters(chosen.parameters)
            return f"Trial {chosen.name}, version {chosen.version}" + (f" with {said_of}." if said_of else ".")
        if self._replays:
            return _sentence(str(self.findings.answer.get("reason")))
        if sweep.state is SweepState.FINISHED:
            return "No trial is shown to meet every hard objective."
        if sweep.state in ACTIVE:
            return f"There is no answer yet: the sweep is {sweep.state.value}."
        return f"There is no answer: the sweep {'failed' if sweep.state is SweepState.FAILED else 'was cancelled'}."

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why that one, or why none; sentences."""
        sweep, answer = self.findings.material.sweep, self.findings.answer
        first = "" if self._replays else str(answer.get("reason") or "") or sweep.message
        told = [first, *map(str, items(answer.get("because")))]
        sentences = [_sentence(part) for one in told for part in one.split(". ") if part]
        return tuple(one for one in sentences if one != self.outcome)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the answer cannot say, and how it is to be read."""
        answer = self.findings.answer
        unseen = [f"the objective {name} could not be measured here" for name in map(str, items(answer.get("unseen")))]
        steps = self.findings.material.asked.steps
        if len(steps) > 1 and self.findings.figures:
            lightest, most = step_words(steps[0]), "throughput is the most under any of the loads"
            unseen.append(f"where no load is named, latencies are those under {lightest}, and {most}")
        return tuple(_sentence(one) for one in (*unseen, *map(str, items(answer.get("notes")))))

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        return tuple(self._goal(one) for one in self.findings.material.sweep.objectives)

    @cached_property
    def numbers(self) -> tuple[tuple[str, Interval], ...]:
        """The figures of the chosen trial that decide, by name."""
        chosen = self.findings.chosen
        figures = self.findings.figures.get(chosen.number, {}) if chosen else {}
        named = [figure_name(_objective(one)) for one in self.findings.material.sweep.objectives]
        wanted = dict.fromkeys((RATE, *named, self.findings.latency or "", THROUGHPUT))
        if RATE in figures:
            wanted.pop(THROUGHPUT, None)  # the same: a rate that is kept up is answered
        return tuple((name, figures[name]) for name in wanted if name in figures)

    @cached_property
    def gains(self) -> tuple[str, ...]:
        """What the choice brings beside the base."""
        chosen, base = self.findings.chosen, self.findings.base
        if chosen is None or base is None:
            return ()
        if chosen.number == base.number:
            return ("It is the base config: nothing that was tried is shown to be better.",)
        material = self.findings.material
        margin = float(spec_from_json(material.sweep.spec).search.margin_percent) / 100
        pairs = compared(material.asked, material.measurements, base.candidate, chosen.candidate, margin)
        plain = [one for one in pairs if " at " not in one.name and one.pairs and one.ratio.value > 0]
        decisive = [one for one in plain if one.name in {RATE, THROUGHPUT, self.findings.latency}]
        return tuple(
            f"{figure_title(one.name)[:1].upper()}{figure_title(one.name)[1:]}: {times(one.ratio)} that of the base config "
            f"({base.name}), {one.outcome}; {counted(one.pairs, 'pair')} of blocks."
            for one in decisive
        )

    @cached_property
    def effort(self) -> str:
        """What it took, in one sentence."""
        material, standings = self.findings.material, self.findings.standings.values()
        tried = [one for one in standings if one.place is not Place.REFUSED]
        refused, failed = (sum(1 for one in standings if one.place is place) for place in (Place.REFUSED, Place.FAILED))
        parts = [f"{counted(len(tried), 'candidate')} in {counted(len(material.measurements), 'block')}"]
        parts += [f"{failed} could not be measured"] if failed else []
        parts += [f"{refused} refused with a reason"] if refused else []
        lasted = self.lasted
        return f"{listed(parts)}{f', in {duration(lasted)}' if lasted else ''}."

    @property
    def lasted(self) -> float | None:
        """Seconds from the beginning to the end, or to the last block."""
        sweep, measurements = self.findings.material.sweep, self.findings.material.measurements
        end = sweep.finished_at or max((one.finished_at for one in measurements), default=None)
        return (end - sweep.began_at).total_seconds() if end and sweep.began_at else None

    @property
    def next_commands(self) -> tuple[str, ...]:
        """To be pasted into a shell."""
        sweep, capsule = self.findings.material.sweep, self.findings.material.capsule
        if capsule is not None:
            return (f"tritonctl sweep replay {quote(capsule)}",)
        if self.findings.chosen is not None:
            environment = quote(sweep.environment) if sweep.environment else "ENV"
            propose = f"tritonctl sweep propose {self.findings.chosen.name} --env {environment}"
            return (propose, f"tritonctl sweep show {sweep.id} --trials")
        if sweep.state in ACTIVE:
            return (f"tritonctl sweep watch {sweep.id}",)
        if sweep.state in {SweepState.FAILED, SweepState.CANCELLED}:
            return (f"tritonctl sweep resume {sweep.id}",)
        return (f"tritonctl sweep show {sweep.id} --trials",)

    @property
    def _replays(self) -> bool:
        """Whether it measured another one's rounds again, to see whether they agree: then nothing is chosen."""
        return "replay" in self.findings.answer

    def _goal(self, tree: Mapping[str, Json]) -> Goal:
        one, chosen = _objective(tree), self.findings.chosen
        asked, hard = objective(dict(tree)), one.weight is None
        if chosen is None:
            return Goal(one.name, asked, one.stakeholder, hard, *self._nearest(one))
        figures = self.findings.figures.get(chosen.number, {})
        for told in items(fields(self.findings.answer.get("findings")).get(chosen.name)):
            if fields(told).get("objective") == one.name:
                return Goal(
                    one.name,
                    asked,
                    one.stakeholder,
                    hard,
                    str(fields(told).get("met")),
                    str(fields(told).get("reason")),
                )
        name = figure_name(one)
        if name not in figures:
            return Goal(one.name, asked, one.stakeholder, hard, Met.CANNOT_TELL.value, f"{name} was not measured")
        if hard:
            answers = sum(point.answers for point in self.findings.points if point.trial.number == chosen.number)
            found = finding(one, Seen(chosen.name, figures, answers))
            return Goal(one.name, asked, one.stakeholder, hard, found.met.value, found.reason)
        value, bound = figures[name].value, float(one.bound)
        good = value >= bound if one.direction == "at_least" else value <= bound
        met = Met.MET if good else Met.MISSED
        reason = f"{figure_title(name)} is {said(figures[name], unit(name))}, wished {one.direction.replace('_', ' ')} {one.bound}"
        return Goal(one.name, asked, one.stakeholder, hard, met.value, reason)

    def _nearest(self, one: Objective) -> tuple[str, str]:
        """Where nothing is chosen: how far the best trial is off. That one of them holds this objective alone is no result."""
        name, numbers = figure_name(one), {trial.number: trial for trial in self.findings.material.trials}
        known = [(figures[name].value, number) for number, figures in self.findings.figures.items() if name in figures]
        if not known or self._replays or self.findings.material.sweep.state is not SweepState.FINISHED:
            return "", ""
        _, best = (max if one.direction == "at_least" else min)(known)
        answers = sum(point.answers for point in self.findings.points if point.trial.number == best)
        found = finding(one, Seen(numbers[best].name, self.findings.figures[best], answers))
        result = found.met.value if found.met is not Met.MET and one.weight is None else ""
        return result, f"the nearest is trial {numbers[best].name}: {found.reason}"


def markdown(findings: Findings) -> str:
    """One page, to be read as text or rendered; whatever people wrote is written so that nothing of it becomes markup."""
    summary, sweep = Summary(findings), findings.material.sweep
    lines = [f"# {_plain(summary.title)}", "", f"**{_plain(summary.outcome)}**", ""]
    lines += [_plain(" ".join(summary.reasons)), ""] if summary.reasons else []
    if summary.goals:
        lines += ["## Goal and outcome", "", "| objective | asked | for | outcome | why |", "|---|---|---|---|---|"]
        lines += [
            "| " + " | ".join(map(_cell, (goal.name, goal.asked + ("" if goal.hard else ", a wish"), goal.stakeholder,
                                          goal.result or "–", goal.reason or "–"))) + " |"
            for goal in summary.goals
        ]  # fmt: skip
        lines.append("")
    if findings.front:
        names = [name for name, _ in summary.numbers]
        lines += ["## Front", "", "| trial | version | parameters | " + " | ".join(map(figure_title, names)) + " |",
                  "|---" * (3 + len(names)) + "|"]  # fmt: skip
        for trial in findings.front:
            figures = findings.figures.get(trial.number, {})
            cells = [_interval(name, figures) for name in names]
            mark = " (chosen)" if trial is findings.chosen else ""
            said_of = ("base config " if trial.base else "") + parameters(trial.parameters)
            lines.append("| " + " | ".join(map(_cell, (trial.name + mark, str(trial.version), said_of, *cells))) + " |")
        lines.append("")
    lines += [f"* {_plain(one)}" for one in (*summary.gains, *summary.notes, _sentence(summary.effort))]
    if sweep.evidence:
        lines.append(f"* Evidence: `{sweep.evidence}`")
    where = ", where this capsule is from" if findings.material.capsule else ""
    lines.append(f"* Started by {_plain(sweep.started_by)} at {moment(sweep.created_at)}{where}, {sweep.state.value}.")
    lines += ["", "Next:", "", *(f"    {command}" for command in summary.next_commands), ""]
    return "\n".join(lines)


def better_word(name: str) -> str:
    return "more is better" if more_is_better(name) else "less is better"


def _interval(name: str, figures: Mapping[str, Interval]) -> str:
    if name not in figures:
        return "–"
    return said(figures[name], unit(name)) + ("" if ends(figures[name]) else ", no interval")


def _objective(tree: Mapping[str, Json]) -> Objective:
    return Objective(**dict(tree))  # type: ignore[arg-type]


def _sentence(words: str) -> str:
    words = words.strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _plain(words: str) -> str:
    """Markdown knows these; newlines would begin something else."""
    words = " ".join(words.split())
    for character in "\\`*_[]<>#|":
        words = words.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return words


def _cell(words: str) -> str:
    return _plain(words)
