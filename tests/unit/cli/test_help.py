# Every command's help, as a golden file; and every command that a hint names exists.
"""Write the golden file anew with `TRITONCTL_GOLDEN=write pytest tests/unit/cli/test_help.py`, and read its diff."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from controlplane.cli.app import COMMANDS, app

GOLDEN = Path(__file__).with_name("help.txt")
SOURCES = [
    path for room in ("controlplane", "clients") for path in Path(__file__).parents[3].joinpath(room).rglob("*.py")
]
_MENTION = re.compile(r"tritonctl((?: [a-z][a-z-]*)+)")


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Context]]:
    yield context.command_path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, click.Context(child, info_name=name, parent=context))


def every_command() -> list[tuple[str, click.Context]]:
    settings = {**app.context_settings, "terminal_width": 100, "max_content_width": 100}
    return list(walk(app, click.Context(app, info_name="tritonctl", **settings)))


def test_the_help_of_every_command_is_the_golden_one() -> None:
    shown = "\n".join(f"$ {path} --help\n{context.get_help()}\n" for path, context in every_command())
    if os.environ.get("TRITONCTL_GOLDEN") == "write":
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


def test_every_command_and_every_option_has_words() -> None:
    bare = [path for path, context in every_command() if not context.command.help]
    assert bare == []


def test_a_groups_line_in_the_overview_is_its_own() -> None:
    overview = {name: line for section in COMMANDS.values() for name, (_, line) in section.items()}
    groups = {}
    for name in overview:
        command = app.get_command(click.Context(app), name)
        if isinstance(command, click.Group):
            groups[name] = command.help
    assert groups == {name: overview[name] for name in groups}
    assert len(groups) > 10


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_command_that_a_text_names_exists(source: Path) -> None:
    missing = []
    for found in _MENTION.finditer(source.read_text(encoding="utf-8")):
        command: click.Command = app
        for word in found[1].split():
            if not isinstance(command, click.Group):
                break
            child = command.get_command(click.Context(command), word)
            if child is None:
                missing.append(found[0])
                break
            command = child
    assert missing == []


def test_help_does_not_import_what_takes_long() -> None:
    import subprocess
    import sys

    probe = (
        "import sys; from controlplane.cli.app import main; main(['--help']); "
        "print(sorted({'httpx', 'fastapi', 'sqlalchemy', 'pydantic', 'numpy', 'grpc', 'onnx', 'rich', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
