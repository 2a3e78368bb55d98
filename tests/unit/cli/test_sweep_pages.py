# What people read of a sweep: the plan, the answer, trials and comparisons, whole pages.
from __future__ import annotations

from dataclasses import replace

import pytest

from clients.control.types import ComparedFigure, ComparisonView, FigureView, SweepView, TrialView
from controlplane.cli.sweep import in_brief
from controlplane.cli.sweep_pages import answer_page, comparison_page, every_trial, figure_words, sweep_page, trial_page

AT = "2026-11-22T10:0{}:00.000000Z"
CROWDED = 'parameters["intra_op_thread_count"].string_value: 4 instances of 2 threads are 8 threads on 2 cores'
SWEEP = SweepView(
    id=3,
    model="digits",
    spec={"model": "digits", "search": {"method": "racing", "seed": 1, "seconds": 180}},
    spec_digest="sha256:dd",
    space={
        "choices": "36",
        "merged": 4,
        "refused": 2,
        "reasons": [
            {"path": "max_batch_size", "sentence": "1, 4: each row was seen to be answered by itself"},
            {"path": "instance_group[0].count", "sentence": "1, 2: 2 cores"},
        ],
    },
    load={"concurrency": "16", "process": "poisson", "rows": 1, "finds_rate": True, "reason": "no objective names a rate"},
    plan={
        "method": "racing",
        "stages": [
            {"name": "round 1", "candidates": 3, "turns": 3, "steps": 2, "milliseconds": 500, "loads": 3},
            {"name": "finalists", "candidates": 2, "turns": 6, "steps": 2, "milliseconds": 2000, "loads": 0},
        ],
        "candidates": 3,
        "seconds": 172,
        "notes": ["3 of 30 candidates are tried: more do not fit into 180 s (search.seconds)"],
    },
    objectives=(
        {"name": "fast", "metric": "latency_ms", "qualifier": "p99", "direction": "at_most", "bound": "10", "weight": None},
        {"name": "much", "metric": "throughput", "qualifier": "", "direction": "at_least", "bound": "9", "weight": "2"},
    ),
    state="finished",
    started_by="olga",
    created_at=AT.format(0),
    environment="prod",
    base_revision=4,
    bench="embedded",
    began_at=AT.format(1),
    finished_at=AT.format(4),
    progress={"stage": "end", "done": 30, "ordered": 30},
    message="",
    answer={
        "chosen": "3.2",
        "front": ["3.2"],
        "reason": "trial 3.2 has the best product of its figures",
        "because": ["812/s held, 850/s did not", "at 812 requests a second: queue 61 % of 4.2 ms"],
        "highest_rate": {"rate": ["812.0", "812.0", "850.0"], "confirmed": True, "percent": "99", "bound_ms": "10"},
        "unseen": ["cheap"],
        "notes": ["a note"],
    },
    evidence="sha256:ee",
)  # fmt: skip


def trial(number: int, **given: object) -> TrialView:
    plain = TrialView(
        sweep=3, number=number, name=f"3.{number}", candidate=f"sha256:{number:064x}", version=1, artifact="sha256:aa",
        config={"max_batch_size": 4}, config_digest="sha256:cc", parameters={"instances": number}, base=False, refused=(),
        failure="", log="", fates=(), figures=(), blocks=0,
    )  # fmt: skip
    return replace(plain, **given)  # type: ignore[arg-type]  # its fields


TRIALS = (
    trial(
        1,
        base=True,
        parameters={},
        figures=(FigureView("sustainable_rate", 400.0, 380.0, 420.0),),
        blocks=3,
        fates=(
            {"look": 1, "fate": "goes on", "reason": "not dominated"},
            {"look": 2, "fate": "dropped", "reason": "dominated by trial 3.2"},
        ),
    ),
    trial(
        2,
        figures=(FigureView("sustainable_rate", 812.0, 812.0, 850.0), FigureView("latency_ms p99", 8.1, 7.5, None)),
        blocks=19,
        fates=({"look": 4, "fate": "chosen", "reason": "the best product"},),
    ),
    trial(3, failure="the load failed: out of memory", log="E1122 out of memory"),
    trial(4, refused=(CROWDED,), config=None),
    trial(5, refused=(CROWDED, "and another"), config=None),
)

PAGE = """\
sweep 3  digits  finished
started   2026-11-22 10:00:00Z by olga
measured  2026-11-22 10:01:00Z to 2026-11-22 10:04:00Z
evidence  sha256:ee
method      racing, seed 1
takes       about 2 min 52 s
candidates  2 of 36 choices and 1 base config besides (4 the same as others, 2 refused)
base        the config of revision 4 in prod
bench       embedded
load        concurrency 16: no objective names a rate
objectives  fast: latency_ms p99 at most 10
            much: throughput at least 9, wished with weight 2
note        3 of 30 candidates are tried: more do not fit into 180 s (search.seconds)

space
  max_batch_size           1, 4: each row was seen to be answered by itself
  instance_group[0].count  1, 2: 2 cores

stages
STAGE      CANDIDATES  BLOCKS OF EACH  SECONDS A BLOCK  LOADS
round 1    3           6               0.5              3
finalists  2           12              2                0

not tried: 2 choices of the space, some for more than one reason
  2 × parameters["intra_op_thread_count"].string_value: 4 instances of 2 threads are 8 threads on 2 cores
  1 × and another
"""
ANSWER = """
front: none of these is shown to be worse than another, the preferred first
TRIAL  VERSION  PARAMETERS   SUSTAINABLE RATE  LATENCY MS P99     BLOCKS
3.2    1        instances=2  812 (812 to 850)  8.1 (7.5 or more)  19

chosen: 3.2, 812 requests a second at p99 <= 10 ms
  trial 3.2 has the best product of its figures
  812/s held, 850/s did not
  at 812 requests a second: queue 61 % of 4.2 ms
  note: a note
  not measured: the objective cheap

lost: 2 candidates
TRIAL  VERSION  PARAMETERS       WHY
3.1    1        the base config  dropped: dominated by trial 3.2
3.3    1        instances=3      could not be measured: the load failed: out of memory

next: tritonctl sweep propose 3.2 --env prod
"""


def test_the_page_of_a_sweep_has_its_plan_with_reasons_and_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    sweep_page(SWEEP, TRIALS)
    assert capsys.readouterr().out == PAGE + ANSWER


def test_a_running_sweep_shows_how_far_it_is_and_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    progress = {"stage": "race", "done": 3, "ordered": 30, "seconds_left": 90, "leader": "trial 3.2"}
    sweep_page(replace(SWEEP, state="running", progress=progress, finished_at=None, evidence=None, answer=None), TRIALS)
    said = capsys.readouterr().out
    assert "measured  2026-11-22 10:01:00Z to -\n" in said
    assert "progress  race, 3 of 30 blocks, about 90 s left, ahead: trial 3.2\n" in said
    assert said.endswith("  1 × and another\n")


def test_without_a_choice_the_reason_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    answer_page(replace(SWEEP, answer={"chosen": None, "front": [], "reason": "no trial meets fast"}), TRIALS[1:2])
    assert capsys.readouterr().out == (
        "\nnothing is chosen\n  no trial meets fast\n"
        "\nlost: 1 candidate\n"
        "TRIAL  VERSION  PARAMETERS   WHY\n"
        "3.2    1        instances=2  chosen: the best product\n"
    )


def test_why_a_finalist_lost_has_the_rates_that_it_held(capsys: pytest.CaptureFixture[str]) -> None:
    fates = (
        {"look": 2, "fate": "finalist", "reason": "2 left"},
        {"look": 3, "fate": "highest rate", "reason": "900/s held, 950/s did not; it was not measured again"},
        {"look": 4, "fate": "not shown to meet the objectives", "reason": "fast: it was not measured"},
    )
    answer_page(replace(SWEEP, answer={"front": [], "reason": "none"}), [replace(TRIALS[1], fates=fates)])
    assert (
        capsys.readouterr()
        .out.rstrip()
        .endswith(
            "  highest rate: 900/s held, 950/s did not; it was not measured again; "
            "not shown to meet the objectives: fast: it was not measured"
        )
    )
    answer_page(replace(SWEEP, answer={"front": [], "reason": "none"}), [replace(TRIALS[1], fates=())])
    assert capsys.readouterr().out.rstrip().endswith("  not measured")


def test_those_that_lost_for_the_same_reason_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    aside = ({"look": 1, "fate": "set aside", "reason": "the time suffices for 1"},)
    trials = [trial(number, fates=aside, blocks=3) for number in (6, 7, 8)]
    answer_page(replace(SWEEP, answer={"front": [], "reason": "none"}), [*trials, TRIALS[2]])
    assert capsys.readouterr().out.endswith(
        "TRIAL          VERSION  PARAMETERS   WHY\n"
        "3.6, 3.7, 3.8  -        -            set aside: the time suffices for 1\n"
        "3.3            1        instances=3  could not be measured: the load failed: out of memory\n"
    )


def test_every_trial_is_listed_with_its_figures_or_why_it_was_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    every_trial(TRIALS[:4])
    assert capsys.readouterr().out == (
        "TRIAL  VERSION  PARAMETERS       SUSTAINABLE RATE  LATENCY MS P99     BLOCKS  FATE\n"
        "3.1    1        the base config  400 (380 to 420)  -                  3       dropped\n"
        "3.2    1        instances=2      812 (812 to 850)  8.1 (7.5 or more)  19      chosen\n"
        "3.3    1        instances=3      -                 -                  0       failed\n"
        "\nnot tried\n"
        "TRIAL  VERSION  PARAMETERS   WHY\n"
        f"3.4    1        instances=4  {CROWDED}\n"
    )


def test_steps_of_a_ladder_stand_by_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    names = [*(f"throughput at concurrency {side}" for side in (1, 16, 4)), "latency_ms p50"]
    every_trial([trial(1, figures=tuple(FigureView(name, 1.0, 1.0, 1.0) for name in names))])
    first = capsys.readouterr().out.splitlines()[0]
    steps = [first.index(f"CONCURRENCY {side} ") for side in (1, 4, 16)]
    assert sorted(steps) == steps
    assert steps[-1] < first.index("LATENCY MS P50")


def test_the_page_of_a_trial_has_what_was_decided_and_the_servers_log(capsys: pytest.CaptureFixture[str]) -> None:
    trial_page(replace(TRIALS[2], fates=TRIALS[0].fates))
    assert capsys.readouterr().out == (
        "trial 3.3\n"
        "version     1\n"
        "artifact    sha256:aa\n"
        "parameters  instances=3\n"
        "config      sha256:cc\n"
        "failure     the load failed: out of memory\n"
        "\nwhat the search decided\n"
        "  look 1: goes on: not dominated\n"
        "  look 2: dropped: dominated by trial 3.2\n"
        "\nthe server's log\n"
        "E1122 out of memory\n"
        '\nconfig\n{\n  "max_batch_size": 4\n}\n'
    )


def test_a_comparison_says_how_many_times_as_much_and_what_that_is(capsys: pytest.CaptureFixture[str]) -> None:
    figures = (
        ComparedFigure("sustainable_rate", 1.987, 1.8, 2.2, "better", 9),
        ComparedFigure("latency_ms p99", None, None, None, "inconclusive", 0),
    )
    comparison_page(ComparisonView(3, 1, 2, 0.05, figures))
    assert capsys.readouterr().out == (
        "trial 3.2 as a multiple of trial 3.1; within 5 % they count as alike\n"
        "FIGURE            3.2 / 3.1  95 %                            3.2 IS        BLOCKS OF EACH\n"
        "sustainable_rate  1.99       1.8 to 2.2                      better        9\n"
        "latency_ms p99    -          too few blocks for an interval  inconclusive  0\n"
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.0, 3.0, "2 (1 to 3)"),
        (1.0, None, "2 (1 or more)"),
        (None, 3.0, "2 (3 or less)"),
        (None, None, "2 (too few blocks for an interval)"),
    ],
)
def test_an_interval_is_said_as_far_as_it_has_ends(low: float | None, high: float | None, said: str) -> None:
    assert figure_words(FigureView("throughput", 2.0, low, high)) == said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("trial 1.3: trial 1.3 has the best product of its figures", "trial 1.3 has the best product of its figures"),
        ("trial 1.3: 812 requests a second", "trial 1.3: 812 requests a second"),
        ("", ""),
        (f"nothing is chosen: {'no trial, ' * 40}", f"nothing is chosen: {'no trial, ' * 10}".rstrip(", ") + " …"),
    ],
)
def test_a_list_has_a_message_in_brief(message: str, said: str) -> None:
    assert in_brief(message) == said
