# Sweeps: find the config that meets a model's objectives, and why.
from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from clients.control.errors import ApiError
from clients.control.types import NewSweep, SweepSummary, SweepView, TrialView
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, when
from controlplane.cli.progress import interruptible, sending
from controlplane.cli.session import Noun, Session, pass_session, say
from controlplane.cli.sweep_progress import Standing, duration, followed

F = TypeVar("F", bound=Callable[..., Any])
_STATES = ("queued", "running", "finished", "failed", "cancelled")
_LONGEST = 10
_BRIEF = 120
"""Characters of a message in a list."""
ELSEWHERE: dict[str, str] = {
    "report": "sweep_report:report",
    "propose": "sweep_propose:propose",
    "export": "sweep_capsule:export",
    "replay": "sweep_capsule:replay",
}
"""Commands that live in files of their own, as `module:attribute`, in the order of --help; imported when they are used."""


class Sweeps(Noun):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            module, _, attribute = ELSEWHERE[cmd_name].partition(":")
            found = getattr(importlib.import_module(f"controlplane.cli.{module}"), attribute)
            assert isinstance(found, click.Command)
            return found
        return super().get_command(ctx, cmd_name)


def sweep_and_trial(text: str) -> tuple[int, int | None]:
    """`SWEEP` or `SWEEP.TRIAL`."""
    sweep_of, dot, trial = text.partition(".")
    if not all(part.isdecimal() and len(part) < _LONGEST for part in ((sweep_of, trial) if dot else (sweep_of,))):
        raise click.BadParameter(
            f"{text!r} is no sweep, such as 3, and no trial, such as 3.7", param_hint="SWEEP[.TRIAL]"
        )
    return int(sweep_of), int(trial) if dot else None


def trial_of(number: int, text: str) -> int:
    """The trial that `text` names, `SWEEP.TRIAL` or its number alone, of sweep `number`."""
    named = sweep_and_trial(text)
    sweep_of, trial = (number, named[0]) if named[1] is None else (named[0], named[1])
    if sweep_of != number:
        raise click.BadParameter(f"{text} is not of sweep {number}", param_hint="TRIAL")
    return trial


def _sweep_alone(text: str) -> int:
    number, trial = sweep_and_trial(text)
    if trial is not None:
        raise click.BadParameter(
            f"{text} is a trial: name the sweep and then both, such as tritonctl sweep compare {number} {trial} OTHER",
            param_hint="SWEEP",
        )
    return number


def waiting(command: F) -> F:
    command = click.option(
        "--timeout",
        type=click.FloatRange(min=1),
        help="Seconds to wait; the sweep goes on without us. Default: no limit.",
    )(command)
    return click.option("--wait/--no-wait", default=True, help="Wait for the answer (default).")(command)


@click.group(cls=Sweeps)
def sweep() -> None:
    """Find the config that meets a model's objectives, and why."""


@sweep.command()
@click.argument("model", metavar="MODEL[:VERSION,…]")
@click.option(
    "--spec",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What to search and how, as YAML or JSON; - is stdin.",
)
@click.option(
    "-e",
    "--env",
    envvar="TRITONCTL_ENV",
    metavar="ENV",
    help="Begin from what that environment serves [env: TRITONCTL_ENV]; default: generated configs.",
)
@click.option(
    "--bench", metavar="ADDRESS", help="Measure on a server that stands ready for it; default: one of our own."
)
@click.option("--seed", type=click.IntRange(min=0), help="Decides orders and arrivals; default: the spec's, or 1.")
@click.option("--seconds", type=click.IntRange(min=10), help="The time budget; default: the spec's, or 180.")
@click.option("--dry-run", is_flag=True, help="Show the plan and start nothing.")
@waiting
@pass_session
def run(
    session: Session,
    /,
    *,
    spec: Path | None,
    env: str | None,
    dry_run: bool,
    wait: bool,
    timeout: float | None,
    **given: Any,
) -> None:
    """Search the config that meets MODEL's objectives.

    Candidates are measured side by side on a server of their own; no environment is touched. What is searched, and under
    which load, comes from the model, its objectives and the hardware, as far as the spec does not say it: its fields are model,
    versions, space, defaults, load and search, each in the table of README.md, "Sweeps".
    """
    new = NewSweep(spec="" if spec is None else _read(spec), environment=env, **given)
    if dry_run:
        from controlplane.cli.sweep_pages import plan_page

        plan = session.client.sweeps.plan(new)
        emit(session, plan, lambda: plan_page(plan, plan.trials))
        return
    with sending("tritonctl sweep list"):
        started = session.client.sweeps.start(new)
    if session.output == "table":
        _plan(session, started)
    finish(session, started, wait=wait, timeout=timeout)


@sweep.command("list")
@click.option("--model", help="Only of this model.")
@click.option("--state", type=click.Choice(_STATES), help="Only in this state.")
@options.limit
@options.cursor
@pass_session
def list_sweeps(session: Session, /, **given: Any) -> None:
    """List sweeps, the newest first."""
    asked = given["model"], given["state"], given["cursor"]
    emit_page(
        session,
        session.client.sweeps.list(**given),
        ("ID", "STATE", "MODEL", "ENV", "BENCH", "STARTED", "BY", "CHOSEN", "MESSAGE"),
        lambda s: (
            s.id,
            s.state,
            s.model,
            s.environment or "-",
            s.bench,
            when(s.created_at),
            s.started_by,
            s.chosen,
            _doing(s),
        ),
        "no such sweep: tritonctl sweep list" if any(asked) else "no sweeps yet: tritonctl sweep run MODEL",
    )


@sweep.command()
@click.argument("name", metavar="SWEEP[.TRIAL]")
@click.option("--trials", is_flag=True, help="Every trial with its figures, refused ones too.")
@pass_session
def show(session: Session, name: str, *, trials: bool) -> None:
    """Show a sweep, or one of its trials.

    A sweep has a plan, progress and an answer; a trial a config, and where it could not be measured the server's log.
    """
    from controlplane.cli import sweep_pages

    number, trial = sweep_and_trial(name)
    sweeps = session.client.sweeps
    if trial is not None:
        found = sweeps.trial(number, trial)
        emit(session, found, lambda: sweep_pages.trial_page(found))
    elif trials:
        listed = sweeps.all_trials(number)
        emit(session, listed, lambda: sweep_pages.every_trial(listed))
    else:
        view = sweeps.get(number)
        emit(session, view, lambda: sweep_pages.sweep_page(view, sweeps.all_trials(number)))


@sweep.command()
@click.argument("number", metavar="SWEEP", type=int)
@waiting
@pass_session
def watch(session: Session, number: int, *, wait: bool, timeout: float | None) -> None:
    """Follow a sweep to its answer."""
    finish(session, session.client.sweeps.get(number), wait=wait, timeout=timeout)


@sweep.command()
@click.argument("number", metavar="SWEEP", callback=lambda _context, _parameter, value: _sweep_alone(value))
@click.argument("one", metavar="TRIAL")
@click.argument("other", metavar="TRIAL")
@pass_session
def compare(session: Session, number: int, one: str, other: str) -> None:
    """Compare the second TRIAL with the first.

    Says how many times as much it does, with an interval, from blocks that were measured in the same turns.
    """
    from controlplane.cli.sweep_pages import comparison_page

    compared = session.client.sweeps.compare(number, trial_of(number, one), trial_of(number, other))
    emit(session, compared, lambda: comparison_page(compared))


@sweep.command()
@click.argument("number", metavar="SWEEP", type=int)
@pass_session
def cancel(session: Session, number: int) -> None:
    """End a sweep. What was measured stays, and it can be resumed."""
    found = session.client.sweeps.cancel(number)
    emit(
        session, found, lambda: say(f"sweep {number} is {found.state}; go on with it: tritonctl sweep resume {number}")
    )


@sweep.command()
@click.argument("number", metavar="SWEEP", type=int)
@waiting
@pass_session
def resume(session: Session, number: int, *, wait: bool, timeout: float | None) -> None:
    """Go on with a sweep that failed or was cancelled. What was measured counts."""
    finish(session, session.client.sweeps.resume(number), wait=wait, timeout=timeout)


def finish(session: Session, started: SweepView, *, wait: bool, timeout: float | None) -> None:
    """Wait for a sweep, show its answer, and raise ApiError when there is none."""
    number, sweeps = started.id, session.client.sweeps
    if not wait:
        say(f"sweep {number} is {started.state}: tritonctl sweep watch {number}")
        emit(session, started, lambda: None)
        return
    if started.state in ("queued", "running"):
        going_on = f"sweep {number} goes on without us; next: tritonctl sweep watch {number}, or tritonctl sweep cancel {number}"
        with interruptible(going_on):
            for _ in followed(sweeps.watch(number, deadline_seconds=timeout or math.inf)):
                pass
    ended = sweeps.get(number)
    emit(session, ended, lambda: _answer(ended, sweeps.all_trials(number)))
    if ended.state != "finished":
        raise ApiError(
            f"sweep {number} {'failed' if ended.state == 'failed' else f'is {ended.state}'}. {ended.message}".rstrip(
                ". "
            ),
            code=f"sweep.{ended.state}",
            exit_code=7,
            hint=f"tritonctl sweep resume {number}",
        )
    answer = ended.answer or {}
    if not answer.get("chosen") and "replay" not in answer:
        raise ApiError(
            f"sweep {number} found no candidate that is shown to meet every hard objective",
            code="sweep.nothing_chosen",
            exit_code=7,
            hint=f"see how far each is off: tritonctl sweep show {number} --trials",
        )


def _answer(ended: SweepView, trials: tuple[TrialView, ...]) -> None:
    from controlplane.cli.sweep_pages import answer_page, title

    title(ended)
    if ended.answer is not None:
        answer_page(ended, trials)


def _plan(session: Session, started: SweepView) -> None:
    from controlplane.cli.sweep_pages import plan_page, title

    title(started)
    plan_page(started, session.client.sweeps.all_trials(started.id))
    click.echo()


def _doing(found: SweepSummary) -> str:
    standing = Standing.of(found.progress)
    if found.state != "running":
        return in_brief(found.message)
    left = "" if standing.seconds_left is None else f", about {duration(standing.seconds_left)} left"
    return f"{100 * standing.share:.0f} %{left}"


def in_brief(message: str) -> str:
    """For a line of a list; the whole is in `sweep show`. An answer may name its trial twice."""
    who, _, rest = message.partition(": ")
    said = rest if rest.startswith(f"{who} ") else message
    return said if len(said) <= _BRIEF else f"{said[:_BRIEF].rsplit(' ', 1)[0].rstrip(',;:.')} …"


def _read(path: Path) -> str:
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            found: str = file.read()
            return found
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.BadParameter(f"{path}: {why}", param_hint="--spec") from None
