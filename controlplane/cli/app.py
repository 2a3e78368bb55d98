# The command line: nouns and verbs, each group imported when it is used, so that --help is quick.
from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import click

from clients.control.errors import ApiError
from controlplane.cli.session import shared_options
from controlplane.errors import ControlPlaneError

_INTERRUPTED = 130

# Name, module and attribute, one line of help. The order is that of --help.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "up": ("up:up", "Run everything here: API, worker and a Triton server."),
        "demo": ("demo:demo", "See the whole story on a live Triton server."),
        "context": ("context:context", "Choose which API to talk to, and as whom."),
    },
    "Models": {
        "model": ("model:model", "Register versions, look at them, adopt a repository."),
        "config": ("config:config", "Generate, check and compare Triton configs."),
        "infer": ("infer:infer", "Send one request to a live model."),
    },
    "Tuning": {
        "sweep": ("sweep:sweep", "Find the config that meets a model's objectives, and why."),
    },
    "Deployments": {
        "environment": ("environment:environment", "Environments and their policies."),
        "server": ("server:server", "Triton servers of an environment."),
        "change": ("change:change", "Propose, review, approve and apply changes."),
        "rollback": ("rollback:rollback", "Go back to an earlier revision."),
        "deployment": ("deployment:deployment", "What each environment does with each model."),
        "revision": ("revision:revision", "Accepted contents, the rollback points."),
        "drift": ("deployment:drift", "Where desired and observed differ."),
    },
    "Governance": {
        "principal": ("access:principal", "Who may do what."),
        "token": ("access:token", "Tokens: what a principal proves itself by."),
        "access": ("bootstrap:access", "The first admin of an installation."),
        "audit": ("audit:audit", "The audit log, its checkpoints and its proofs."),
        "webhook": ("webhook:webhook", "Tell other systems what happens, by signed POSTs."),
    },
    "Operation": {
        "api": ("processes:api", "Serve the HTTP API."),
        "worker": ("processes:worker", "Converge deployments, watch them, sign checkpoints."),
        "db": ("db:db", "Upgrade and check the database's schema."),
        "bench": ("bench:bench", "Hosts that sweeps are measured on."),
        "runtime": ("runtime:runtime", "The embedded Triton server."),
        "completion": ("completion:completion", "Print the shell completion script."),
    },
}


class Root(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        for section in COMMANDS.values():
            if cmd_name in section:
                module, _, attribute = section[cmd_name][0].partition(":")
                found = getattr(importlib.import_module(f"controlplane.cli.{module}"), attribute)
                assert isinstance(found, click.Command)
                return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in every group: a word that is nearly a command's name is understood to be meant so."""
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches  # for mistakes only

            near = get_close_matches(word, self.list_commands(ctx), 1)
            ctx.fail(f"No such command {word!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.list_commands(ctx))
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, line) in section.items()])


@click.group(cls=Root, params=shared_options(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="triton-controlplane", message="%(prog)s %(version)s")
def app() -> None:
    """Deploy to Triton Inference Server with approval, proof and rollback."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; the exit status, by the class of the error."""
    words = sys.argv[1:] if arguments is None else arguments
    report = _report_json if _asks_for_json(words) else _report
    try:
        result = app.main(arguments, prog_name="tritonctl", standalone_mode=False)
    except click.exceptions.Abort:
        return _INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # nothing was wrong: no more was asked for than what there is
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "tritonctl"
        return report("usage", error.format_message(), f"{path} --help", error.exit_code)
    except click.ClickException as error:
        return report("usage", error.format_message(), None, error.exit_code)
    except (ApiError, ControlPlaneError) as error:
        return report(error.code, error.message, error.hint, error.exit_code, error.details)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the answer has seen enough. What is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def _asks_for_json(words: Sequence[str]) -> bool:
    """Also where the command line is wrong before its options are understood."""
    return any(word in ("-ojson", "--output=json") for word in words) or any(
        word in ("-o", "--output") and value == "json" for word, value in pairwise(words)
    )


def _report_json(
    code: str, message: str, hint: str | None, exit_code: int, details: Mapping[str, object] | None = None
) -> int:
    tree = {"error": {"code": code, "message": message, "hint": hint, "details": dict(details or {})}}
    click.echo(json.dumps(tree, indent=2, ensure_ascii=False), err=True)
    return exit_code


def _report(
    code: str, message: str, hint: str | None, exit_code: int, details: Mapping[str, object] | None = None
) -> int:
    fields, findings = ((details or {}).get(name) for name in ("fields", "findings"))
    several = findings if isinstance(findings, list) and len(findings) > 1 else []
    if several:  # each with its hint on a line of its own, in place of all of them in two lines
        message, hint = f"Triton would refuse the config, for {len(several)} findings", None
    click.echo(f"{click.style('error', fg='red', bold=True)} [{code}]: {message}", err=True)
    for item in fields if isinstance(fields, list) else []:
        click.echo(f"  {item['where']}: {item['message']}", err=True)
    for item in several:
        click.echo(f"  {item['path']}: {item['message']}; {item.get('hint', '')}".rstrip("; "), err=True)
    if hint and hint not in message:
        click.echo(f"{click.style('next', bold=True)}: {hint}", err=True)
    return exit_code
