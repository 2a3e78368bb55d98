# What the answer of a sweep says beside its choice: on what it rests, and what that leaves open.
from __future__ import annotations

import re
from dataclasses import replace

from controlplane.domain.canonical import Json
from controlplane.domain.sweep_answer import Conclusion
from controlplane.domain.sweep_baseline import Baseline, beside_base
from controlplane.domain.sweep_course import asked_of
from controlplane.domain.sweep_rates import Found
from controlplane.domain.sweep_rounds import Stage, Verdict
from controlplane.domain.sweeps import Trial
from tests.unit.services.test_sweep_next import LARGE, MANY, P99, Simulated


def test_a_choice_that_rests_on_blocks_of_a_late_generator_says_so() -> None:
    sweep = Simulated({})
    sweep.run()
    late = (Stage.CONFIRM, Stage.RATE)
    sweep.taken = [
        replace(one, measurement=replace(one.measurement, verdict=Verdict.CLIENT_LIMITED))
        if one.measurement.stage in late
        else one
        for one in sweep.taken
    ]
    end = sweep.where().conclusion()
    assert end.answer["chosen"] is not None
    notes = end.answer["notes"]
    assert isinstance(notes, list)
    assert "in 5 of the 5 blocks that the choice rests on the load generator itself was late" in str(notes[-1])


def test_a_choice_some_of_whose_requests_failed_says_so_with_their_words() -> None:
    sweep = Simulated({"load": {"concurrency": "4"}}, objectives=())
    sweep.run()
    sweep.taken = [
        replace(
            one, measurement=replace(one.measurement, verdict=Verdict.ERRORS, failed=3, failure="UNAVAILABLE: full")
        )
        if one.measurement.stage is Stage.CONFIRM and one.measurement.order.turn == 1
        else one
        for one in sweep.taken
    ]
    end = sweep.where().conclusion()
    assert end.answer["chosen"] is not None
    assert (
        "in 1 of the 6 blocks that the choice rests on requests failed, 3 in all, which count as beyond any latency: "
        "UNAVAILABLE: full"
    ) in (end.answer["notes"] or [])  # type: ignore[operator]


def test_a_required_rate_that_is_judged_with_slack_is_said_to_be() -> None:
    said = "many asks for 150 requests a second, and counts as met from 148.5 on: how many arrive in a block is drawn"
    assert said in (Simulated({}, objectives=(MANY,)).run().answer["notes"] or [])  # type: ignore[operator]
    closed = Simulated({"load": {"concurrency": "1,4"}}, objectives=(MANY,)).run()
    assert "counts as met from" not in str(closed.answer["notes"])
    assert "to be at least 150" in str(closed.answer["findings"])


def test_what_the_hypervisor_took_while_rates_were_looked_for_is_said() -> None:
    sweep = Simulated({})
    sweep.run()
    last = sweep.taken[-1]
    sweep.taken[-1] = replace(last, measurement=replace(last.measurement, steal_ppm=310_000))
    notes = sweep.where().conclusion().answer["notes"]
    assert isinstance(notes, list)
    rates = sum(one.measurement.stage is Stage.RATE for one in sweep.taken)
    assert f"in 1 of the {rates} blocks of the highest rate the hypervisor took more than 2% of" in str(notes[-1])
    assert "at the most 31 %" in str(notes[-1])


def test_a_choice_that_is_not_shown_to_beat_the_base_config_says_so() -> None:
    """A microsecond of delay is no difference."""
    alike: Json = {"instances": 2, "max_batch_size": 8, "threads": 1, "queue_delay_us": [0, 1]}
    sweep = Simulated({"space": alike, "load": {"rate": "50"}})
    assert not any("base config" in note for note in _notes(sweep.run()))
    chosen = sweep.chosen(sweep.where().conclusion())
    sweep.trials = [replace(one, base=bool(one.parameters) and one is not chosen) for one in sweep.trials]
    assert chosen is not None
    said = [note for note in _notes(sweep.where().conclusion()) if "base config" in note]
    assert len(said) == 1
    assert said[0].startswith("not shown to be better than the base config, trial ")
    assert said[0].endswith("Nothing is lost by staying with that")


def test_how_much_better_than_the_base_config_the_choice_is_comes_first() -> None:
    sweep = Simulated({"load": {"concurrency": "4"}}, objectives=())
    sweep.run()
    slowest = {"instances": 1, "threads": 1}
    base = next(one for one in sweep.trials if slowest.items() <= one.parameters.items())
    assert re.match(
        rf"beside the base config, trial {base.name}: throughput [\d.]+ times as good \([1-9]", _first(sweep, base)
    )


def test_a_base_config_that_did_not_hold_the_rate_of_the_choice_is_told_by_the_rates() -> None:
    sweep = Simulated({})
    end = sweep.run()
    chosen = sweep.chosen(end)
    assert chosen is not None
    base = next(one for one in sweep.trials if one.base)
    fresh = tuple(one.measurement for one in sweep.taken if one.measurement.stage is Stage.RATE)[-1:]
    rates = {chosen.candidate: Found(200.0, 220.0, again=fresh), base.candidate: Found(90.0, 100.0)}
    told = beside_base(asked_of(sweep.sweep), sweep.trials, (), chosen, rates)
    assert told is not None
    assert told == Baseline(
        True, f"200/s held, and on the base config, trial {base.name}, 100/s did not: 2 times as much, or more"
    )


def _first(sweep: Simulated, base: Trial) -> str:
    """The first of the reasons, had this been the base config."""
    sweep.trials = [replace(one, base=one is base) for one in sweep.trials]
    end = sweep.where().conclusion()
    assert not any("base config" in note for note in _notes(end))
    because = end.answer["because"]
    assert isinstance(because, list)
    return str(because[0])


def _notes(end: Conclusion) -> list[str]:
    notes = end.answer["notes"]
    assert isinstance(notes, list)
    return [str(note) for note in notes]


def test_where_no_rate_holds_that_is_said_and_not_that_nothing_was_measured() -> None:
    impossible = replace(P99, bound="0.0001")
    end = Simulated({}, (impossible,)).run()
    assert end.answer["chosen"] is None
    assert "no rate held: " in end.message
    assert "was the lowest that was tried; latency_ms p99 is to be at most 0.0001 ms" in end.message
    assert "was not measured" not in end.message


def test_where_no_block_shows_a_figure_nothing_is_chosen() -> None:
    """The first by name would be one that nothing speaks for."""
    sweep = Simulated({"load": {"rate": "0.5"}}, ())
    end = sweep.run()
    assert (end.answer["chosen"], end.answer["front"]) == (None, [])
    assert end.message.startswith(
        "nothing is chosen: nothing tells candidates apart: not all of those that are left show "
    )
    assert "latency_ms p99" in end.message
    left = [fates[-1]["reason"] for fates in end.fates.values() if fates and fates[-1]["fate"] == "not told apart"]
    assert left == [end.answer["reason"]] * len(left) != []
    assert any("p99 needs 459 answers" in str(note) for note in sweep.sweep.plan["notes"])  # type: ignore[union-attr]


def test_a_race_that_asks_for_more_candidates_is_not_done() -> None:
    sweep = Simulated({"space": LARGE})
    stages = list[str]()
    while (now := sweep.where()).ahead is not None or now.asks:
        stages.append(str(now.progress(len(sweep.taken))["stage"]))
        if now.asks:
            assert now.progress(len(sweep.taken))["seconds_left"] not in {0, None}
            break
        sweep.measure()
    assert stages[-1] == "choosing more candidates"
    assert "done" not in stages
