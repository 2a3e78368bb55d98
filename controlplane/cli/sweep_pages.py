# Pages of sweeps that people read: the plan, the answer, trials, comparisons.
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import click

from clients.control.types import ComparisonView, FigureView, JsonObject, PlanView, SweepView, TrialView
from controlplane.cli.output import coloured, facts, heading, prose, table, text, when
from controlplane.cli.sweep_progress import Standing, duration
from controlplane.domain.sweep_values import short

_REASONS_SHOWN = 8
_RATE = "highest rate"
"""The fate that says which rates a finalist held: a reason why it lost, whatever was decided after."""


def plan_page(sweep: PlanView | SweepView, trials: Sequence[TrialView]) -> None:
    """What it does, why, and for how long."""
    plan, tried = sweep.plan, [trial for trial in trials if not trial.refused]
    facts(
        [
            ("method", f"{plan.get('method')}, seed {_object(sweep.spec.get('search')).get('seed')}"),
            ("takes", f"about {duration(_number(plan.get('seconds')))}"),
            ("versions", ", ".join(map(str, _list(sweep.space.get("versions"))))),
            ("candidates", _candidates(sweep, tried)),
            ("base", _base(sweep)),
            ("bench", sweep.bench),
            ("load", _load(sweep.load)),
            ("objectives", "\n".join(_objective(one) for one in sweep.objectives) or "none: every figure counts alike"),
            ("note", "\n".join(str(note) for note in _list(plan.get("notes")))),
        ]
    )
    heading("space")
    _space(sweep.space)
    heading("stages")
    table(
        ("STAGE", "CANDIDATES", "BLOCKS OF EACH", "SECONDS A BLOCK", "LOADS"),
        [_stage(_object(stage)) for stage in _list(plan.get("stages"))],
    )
    refused_page([trial for trial in trials if trial.refused])


def refused_page(refused: Sequence[TrialView]) -> None:
    """Why some are not tried: each reason once, with how many it meets."""
    if not refused:
        return
    several = ", some for more than one reason" if any(len(trial.refused) > 1 for trial in refused) else ""
    heading(f"not tried: {_count(len(refused), 'choice')} of the space{several}")
    reasons = Counter(reason for trial in refused for reason in trial.refused).most_common()
    for reason, count in reasons[:_REASONS_SHOWN]:
        prose(reason, f"  {count} × ")
    if len(reasons) > _REASONS_SHOWN:
        click.echo(f"  and for {len(reasons) - _REASONS_SHOWN} other reasons")


def sweep_page(sweep: SweepView, trials: Sequence[TrialView]) -> None:
    title(sweep)
    standing = Standing.of(sweep.progress)
    facts(
        [
            ("started", f"{when(sweep.created_at)} by {sweep.started_by}"),
            ("measured", f"{when(sweep.began_at)} to {when(sweep.finished_at)}" if sweep.began_at else None),
            ("progress", standing.words if sweep.state == "running" else None),
            ("message", sweep.message),
            ("evidence", sweep.evidence),
        ]
    )
    plan_page(sweep, trials)
    if sweep.answer is not None:
        answer_page(sweep, trials)


def title(sweep: SweepView) -> None:
    click.secho(f"sweep {sweep.id}  {sweep.model}  ", bold=True, nl=False)
    click.echo(coloured(sweep.state))


def answer_page(sweep: SweepView, trials: Sequence[TrialView]) -> None:
    """The front, the choice with its reason, what lost and why, and the next command."""
    answer = sweep.answer or {}
    if "replay" in answer:
        _agreement_page(answer)
        return
    by_name = {trial.name: trial for trial in trials}
    chosen = answer.get("chosen")
    front = [by_name[name] for name in map(str, _list(answer.get("front"))) if name in by_name]
    if front:
        heading("front: none of these is shown to be worse than another, the preferred first")
        trials_table(front)
    heading(f"chosen: {chosen}{_highest(_object(answer.get('highest_rate')))}" if chosen else "nothing is chosen")
    for line in (answer.get("reason"), *_list(answer.get("because"))):
        prose(str(line))
    for note in _list(answer.get("notes")):
        prose(str(note), "  note: ")
    for name in _list(answer.get("unseen")):
        click.echo(f"  not measured: the objective {name}")
    lost = [trial for trial in trials if trial not in front and not trial.refused]
    if lost:
        heading(f"lost: {_count(len(lost), 'candidate')}")
        lost.sort(key=lambda trial: -trial.blocks)
        table(("TRIAL", "VERSION", "PARAMETERS", "WHY"), _by_reason(lost))
    if chosen:
        click.echo(f"\nnext: tritonctl sweep propose {chosen} --env {sweep.environment or 'ENV'}")


def _by_reason(lost: Sequence[TrialView]) -> list[tuple[object, ...]]:
    """One line each, and one for all that share a reason."""
    reasons: dict[str, list[TrialView]] = {}
    for trial in lost:
        reasons.setdefault(why_lost(trial), []).append(trial)
    return [
        (*_who(own[0]), why) if len(own) == 1 else (", ".join(trial.name for trial in own), "-", "-", why)
        for why, own in reasons.items()
    ]


def _agreement_page(answer: JsonObject) -> None:
    """Of a replay: which figures agree with those of its capsule, and what differs of the machines."""
    prose(str(answer.get("reason")))
    for what, name in (("figures", "because"), ("beside", "notes")):
        lines = _list(answer.get(name))
        if lines:
            heading(what)
            for line in lines:
                prose(str(line))


def _highest(highest: JsonObject) -> str:
    """Empty where no highest rate was looked for."""
    if not highest:
        return ""
    rate = float(str(_list(highest.get("rate"))[0]))
    sure = "" if highest.get("confirmed") else ", which was not measured again"
    return f", {short(rate)} requests a second at p{highest.get('percent')} <= {highest.get('bound_ms')} ms{sure}"


def why_lost(trial: TrialView) -> str:
    if trial.failure:
        return f"could not be measured: {trial.failure}"
    if not trial.fates:
        return "not measured"
    told = [fate for fate in trial.fates[:-1] if fate.get("fate") == _RATE] + [trial.fates[-1]]
    return "; ".join(f"{fate.get('fate')}: {fate.get('reason')}" for fate in told)


def trials_table(trials: Sequence[TrialView], *, fates: bool = False) -> None:
    """With a column for each figure that any of them has; `fates`: and with the last thing that was decided of it."""
    names = _in_order(list(dict.fromkeys(figure.name for trial in trials for figure in trial.figures)))
    table(
        ("TRIAL", "VERSION", "PARAMETERS", *(_heading(name) for name in names), "BLOCKS", *(["FATE"] if fates else [])),
        [
            (
                *_who(trial),
                *(_figure(trial, name) for name in names),
                trial.blocks,
                *([_fate(trial)] if fates else []),
            )
            for trial in trials
        ],
    )


def every_trial(trials: Sequence[TrialView]) -> None:
    """Those that were tried with their figures and their fate, then the others with why not."""
    tried = [trial for trial in trials if not trial.refused]
    trials_table(tried, fates=True)
    refused = [trial for trial in trials if trial.refused]
    if refused:
        heading("not tried")
        table(("TRIAL", "VERSION", "PARAMETERS", "WHY"), [(*_who(one), "; ".join(one.refused)) for one in refused])


def trial_page(trial: TrialView) -> None:
    click.secho(f"trial {trial.name}", bold=True)
    facts(
        [
            ("version", trial.version),
            ("artifact", trial.artifact),
            ("parameters", _parameters(trial)),
            ("config", trial.config_digest),
            ("not tried", "\n".join(trial.refused)),
            ("failure", trial.failure),
            ("blocks", trial.blocks or None),
            *((figure.name, figure_words(figure)) for figure in trial.figures),
        ]
    )
    if trial.fates:
        heading("what the search decided")
        for fate in trial.fates:
            prose(f"{fate.get('fate', '')}: {fate.get('reason', '')}", f"  look {fate.get('look', '?')}: ")
    if trial.log:
        heading("the server's log")
        click.echo(trial.log)
    if trial.config is not None:
        heading("config")
        click.echo(json.dumps(trial.config, indent=2))


def comparison_page(compared: ComparisonView) -> None:
    one, other = (f"{compared.sweep}.{number}" for number in (compared.one, compared.other))
    click.echo(f"trial {other} as a multiple of trial {one}; within {100 * compared.margin:g} % they count as alike")
    table(
        ("FIGURE", f"{other} / {one}", "95 %", f"{other} IS", "BLOCKS OF EACH"),
        [
            (
                one.name,
                "-" if one.ratio is None else f"{one.ratio:.3g}",
                _between(one.low, one.high),
                one.outcome,
                one.pairs,
            )
            for one in compared.figures
        ],
    )


def _fate(trial: TrialView) -> str:
    if trial.failure:
        return "failed"
    return str(trial.fates[-1].get("fate")) if trial.fates else "-"


def figure_words(figure: FigureView) -> str:
    return f"{short(figure.value)} ({_between(figure.low, figure.high)})"


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return "too few blocks for an interval" if high is None else f"{short(high)} or less"
    if high is None:
        return f"{short(low)} or more"
    return f"{short(low)} to {short(high)}"


def _in_order(names: Sequence[str]) -> list[str]:
    """As they come, but steps of a ladder by their number: concurrency 4 before 16."""
    stems = {name: re.sub(r"\d+(\.\d+)?$", "", name) for name in names}
    first = list(stems.values())
    return sorted(names, key=lambda name: (first.index(stems[name]), float(name.removeprefix(stems[name]) or 0)))


def _heading(name: str) -> str:
    return name.replace("_", " ").upper()


def _figure(trial: TrialView, name: str) -> str:
    return next((figure_words(figure) for figure in trial.figures if figure.name == name), "-")


def _who(trial: TrialView) -> tuple[str, int, str]:
    return trial.name, trial.version, _parameters(trial)


def _parameters(trial: TrialView) -> str:
    if trial.base:
        return "the base config" + (f": {text(trial.parameters)}" if trial.parameters else "")
    return text(trial.parameters)


def _candidates(sweep: PlanView | SweepView, tried: Sequence[TrialView]) -> str:
    listed = [trial for trial in tried if trial.parameters]
    if sweep.plan.get("method") == "optuna" and len(tried) <= 1:
        return f"asked for as it goes, up to {sweep.plan.get('candidates')} of {_choices(sweep.space)}"
    said = f"{len(listed)} of {_choices(sweep.space)}"
    if len(listed) < len(tried):
        said += f" and {_count(len(tried) - len(listed), 'base config')} besides"
    others = (("merged", "the same as others"), ("refused", "refused"))
    counted = [f"{count} {words}" for name, words in others if (count := _number(sweep.space.get(name)))]
    return f"{said} ({', '.join(counted)})" if counted else said


def _choices(space: JsonObject) -> str:
    """More than a thousand million as a power of ten: nobody counts digits."""
    count = int(str(space.get("choices", 0)))
    return _count(count, "choice") if count < 10**9 else f"about {Decimal(count):.1e} choices"


def _base(sweep: PlanView | SweepView) -> str:
    if sweep.environment is None:
        return "generated configs"
    return f"the config of revision {sweep.base_revision} in {sweep.environment}"


def _load(load: JsonObject) -> str:
    shape = next((f"{name.replace('_', ' ')} {load[name]}" for name in load if name not in _NO_SHAPE), "")
    return f"{shape}: {load.get('reason', '')}".strip(": ")


_NO_SHAPE = frozenset({"process", "rows", "reason", "finds_rate"})


def _objective(one: JsonObject) -> str:
    asked = f"{one.get('metric')} {one.get('qualifier') or ''}".strip()
    wanted = f"{asked} {str(one.get('direction', '')).replace('_', ' ')} {one.get('bound')}"
    weight = one.get("weight")
    return f"{one.get('name')}: {wanted}" + (f", wished with weight {weight}" if weight is not None else "")


def _space(space: JsonObject) -> None:
    reasons = [_object(reason) for reason in _list(space.get("reasons"))]
    width = max((len(str(reason.get("path"))) for reason in reasons), default=0)
    for reason in reasons:
        prose(str(reason.get("sentence")), f"  {str(reason.get('path')).ljust(width)}  ")


def _stage(stage: JsonObject) -> tuple[object, ...]:
    each = _number(stage.get("turns")) * _number(stage.get("steps"))
    seconds = f"{_number(stage.get('milliseconds')) / 1000:g}"
    return stage.get("name"), stage.get("candidates"), each, seconds, stage.get("loads")


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
