# Triton configs: generated, checked, compared.
from __future__ import annotations

from typing import IO, Any

import click

from clients.control.errors import ApiError
from clients.control.types import ConfigText, Finding, Intent
from controlplane.cli import options
from controlplane.cli.change import split_set
from controlplane.cli.output import coloured, emit
from controlplane.cli.pages import RELOAD_WORDS, differences
from controlplane.cli.session import Noun, Session, pairs, pass_session, say


@click.group(cls=Noun)
def config() -> None:
    """Generate, check and compare Triton configs."""


@config.command()
@click.argument("target", metavar="MODEL[:VERSION]")
@options.server_of
@click.option("--latency", "aim", flag_value="latency", default="latency", help="For short answers (default).")
@click.option("--throughput", "aim", flag_value="throughput", help="For many answers.")
@click.option("--max-batch-size", type=click.IntRange(min=0), help="Rows of one execution.")
@click.option("--instances", type=click.IntRange(min=1), help="Instances of the model.")
@click.option("--kind", type=click.Choice(("cpu", "gpu")), help="Where it runs.")
@click.option("--gpu", "gpus", type=click.IntRange(min=0), multiple=True, help="Device; may be given several times.")
@click.option("--max-queue-delay", "max_queue_delay_us", type=click.IntRange(min=0), metavar="MICROSECONDS")
@click.option("--preferred-batch-size", "preferred_batch_sizes", type=int, multiple=True)
@click.option("--preserve-ordering", is_flag=True, help="Answers in the order of the requests.")
@click.option("--priority-levels", type=click.IntRange(min=0), default=0)
@click.option("--default-priority-level", type=click.IntRange(min=1))
@click.option("--queue-timeout", "queue_timeout_us", type=click.IntRange(min=0), default=0, metavar="MICROSECONDS")
@click.option("--queue-size", type=click.IntRange(min=0), default=0, help="Requests that may wait.")
@click.option("--queue-delay", is_flag=True, help="Late requests are kept behind the others, not refused.")
@click.option("--resource", "resources", multiple=True, metavar="NAME=COUNT", help="For the rate limiter.")
@click.option("--accelerator", type=click.Choice(("tensorrt", "openvino")))
@click.option("--half-precision", is_flag=True, help="Let the accelerator compute in FP16.")
@click.option("--cuda-graphs", is_flag=True)
@click.option("--response-cache", is_flag=True, help="The same inputs get the stored answer.")
@click.option("--warmup", is_flag=True, help="Send one request to each instance before it serves.")
@click.option("--threads", type=click.IntRange(min=1), help="Of one execution.")
@click.option("--parallel-execution", is_flag=True, help="Independent parts of the graph at the same time.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Set one field.")
@click.option("--unset", "unsets", multiple=True, metavar="PATH", help="Remove one field.")
@click.option("--file", type=click.File("w"), help="Write the config.pbtxt there; default: stdout.")
@pass_session
def generate(
    session: Session,
    /,
    target: str,
    *,
    env: str | None,
    sets: tuple[str, ...],
    resources: tuple[str, ...],
    file: IO[str] | None,
    **given: Any,
) -> None:
    """Write a complete config for a version (default: the highest), with the reason for each choice."""
    model, version = model_and_version(target)
    counts = {name: _count(text) for name, text in pairs(resources, "--resource").items()}
    intent = Intent(sets=tuple(split_set(text) for text in sets), resources=counts or None, environment=env, **given)
    made = session.client.configs.generate(model, version, intent)

    def page() -> None:
        say(f"hardware: {made.hardware}")
        for choice in made.choices:
            say(f"{click.style(choice.path, bold=True)}: {choice.sentence}")
        _findings(made.findings)
        click.echo(made.text, nl=False, file=file)

    emit(session, made, page)


@config.command()
@click.argument("file", type=click.File())
@click.option("--for", "target", metavar="MODEL[:VERSION]", help="Check it against a registered version too.")
@options.server_of
@pass_session
def lint(session: Session, file: IO[str], target: str | None, env: str | None) -> None:
    """Check a config.pbtxt: what Triton would refuse, and what you would regret."""
    model, version = model_and_version(target) if target else (None, None)
    found = session.client.configs.lint(ConfigText(file.read(), model, version, env))

    def page() -> None:
        say(f"hardware: {found.hardware}")
        _findings(found.items)
        if not found.items:
            say("nothing found")

    emit(session, found, page)
    refused = [finding for finding in found.items if finding.severity == "refused"]
    if refused:
        number = "1 finding" if len(refused) == 1 else f"{len(refused)} findings"
        raise ApiError(
            f"Triton would refuse {file.name}, for {number} above",
            code="config.invalid",
            exit_code=2,
            hint=f"mend what is refused, then: tritonctl config lint {file.name}",
        )


@config.command()
@click.argument("before", type=click.File())
@click.argument("after", type=click.File())
@pass_session
def diff(session: Session, before: IO[str], after: IO[str]) -> None:
    """Compare two config.pbtxt by meaning, and say what the difference costs."""
    found = session.client.configs.diff(before.read(), after.read())

    def page() -> None:
        differences(found.differences)
        click.echo(f"costs: {coloured(found.reload_class)} ({RELOAD_WORDS.get(found.reload_class, '')})")

    emit(session, found, page)


@config.command()
@click.argument("model")
@options.environment
@pass_session
def get(session: Session, model: str, env: str) -> None:
    """Print the config of what is deployed, as config.pbtxt."""
    found = session.client.configs.deployed(env, model)
    emit(session, found, lambda: click.echo(found.text, nl=False))


def model_and_version(target: str) -> tuple[str, int | None]:
    """`NAME` or `NAME:VERSION`."""
    name, colon, number = target.partition(":")
    if colon and not number.isdecimal():
        raise click.BadParameter(f"{target!r} is not MODEL or MODEL:VERSION")
    return name, int(number) if colon else None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is not a number", param_hint="--resource")
    return int(text)


def _findings(found: tuple[Finding, ...]) -> None:
    for finding in found:
        colour = "red" if finding.severity == "refused" else "yellow"
        where = f"{finding.path}: " if finding.path else ""
        say(f"{click.style(finding.severity, fg=colour)}: {where}{finding.message}; {finding.hint}")
