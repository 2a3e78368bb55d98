# How far a sweep is, in words: what is said in a pipe, and how long things take.
from __future__ import annotations

from dataclasses import replace

import click
import pytest

from clients.control.types import JsonObject, SweepSummary
from controlplane.cli.sweep import sweep_and_trial, trial_of
from controlplane.cli.sweep_progress import Standing, duration, followed

QUEUED = SweepSummary(
    3, "digits", "queued", "", "olga", "2026-11-22T10:00:00.000000Z", None, None, None, "embedded", {}, None
)


def seen(state: str, message: str = "", **progress: object) -> SweepSummary:
    return replace(QUEUED, state=state, message=message, progress=progress)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (185, "3 min 5 s"), (7199, "119 min 59 s"), (7800, "2 h 10 min"), (86400, "24 h")],
)  # fmt: skip
def test_a_duration_is_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("progress", "words", "share"),
    [
        ({}, "", 0.0),
        ({"stage": "race", "done": 3, "ordered": 0}, "race", 0.0),
        (
            {"stage": "race", "done": 12, "ordered": 48, "seconds_left": 130, "leader": "3.7"},
            "race, 12 of 48 blocks, about 2 min 10 s left, ahead: 3.7",
            0.25,
        ),
        ({"stage": "race", "done": 50, "ordered": 48}, "race, 50 of 48 blocks", 1.0),
    ],
)
def test_progress_is_said_as_far_as_it_is_known(progress: JsonObject, words: str, share: float) -> None:
    standing = Standing.of(progress)
    assert (standing.words, standing.share) == (words, share)


def test_in_a_pipe_there_is_a_line_for_each_stage_leader_and_tenth_of_the_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweeps = [
        seen("queued"),
        seen("queued"),
        seen("running"),
        *(
            seen("running", stage="race", done=share, ordered=40, seconds_left=80 - share)
            for share in (0, 1, 2, 3, 4, 5)
        ),
        seen("running", stage="race", done=6, ordered=40, seconds_left=70, leader="3.2"),
        seen("running", stage="race", done=7, ordered=40, seconds_left=69, leader="3.2: 400/s"),
        seen("running", stage="confirm", done=6, ordered=52, seconds_left=60, leader="3.2"),
        seen("failed", "the bench is gone", stage="confirm", done=7, ordered=52),
    ]
    assert list(followed(sweeps)) == sweeps
    assert capsys.readouterr().err == (
        "sweep 3: waits for a worker\n"
        "sweep 3: opens its bench\n"
        "sweep 3: race, 0 of 40 blocks, about 80 s left\n"
        "sweep 3: race, 4 of 40 blocks, about 76 s left\n"
        "sweep 3: race, 6 of 40 blocks, about 70 s left, ahead: 3.2\n"
        "sweep 3: confirm, 6 of 52 blocks, about 60 s left, ahead: 3.2\n"
        "sweep 3: failed\n"
    )


def test_a_trial_is_named_with_its_sweep_or_by_its_number() -> None:
    assert (sweep_and_trial("3"), sweep_and_trial("3.7")) == ((3, None), (3, 7))
    assert (trial_of(3, "7"), trial_of(3, "3.7")) == (7, 7)
    for text in ("", "x", "3.", ".7", "3.7.1", "-3", "9" * 10):
        with pytest.raises(click.BadParameter, match=r"is no sweep, such as 3"):
            sweep_and_trial(text)
    with pytest.raises(click.BadParameter, match=r"4\.7 is not of sweep 3"):
        trial_of(3, "4.7")
