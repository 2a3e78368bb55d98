# What the documents say is so: commands exist, settings and exit statuses are complete, paths are there.
from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from controlplane.cli.app import COMMANDS, app
from controlplane.domain.sweep_dimensions import SHORT
from controlplane.domain.sweep_spec import Search, Shape, SweepSpec
from controlplane.errors import ControlPlaneError
from controlplane.settings import Settings
from tests.unit.test_errors import whole_tree

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "controlplane/ARCHITECTURE.md", "deploy/README.md",
    "model_repository/README.md",
]  # fmt: skip
README = (ROOT / "README.md").read_text()
ROOT_CONTEXT = click.Context(app, info_name="tritonctl")


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(ROOT_CONTEXT):
            child = command.get_command(ROOT_CONTEXT, name)
            assert child is not None
            yield from walk(child, (*path, name))


EVERY_COMMAND = dict(walk(app, ("tritonctl",)))


def command_lines(text: str) -> list[str]:
    """Lines of fenced blocks that run `tritonctl`, continued lines joined, what goes into and comes out of it removed."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", "\n".join(blocks))
    found = re.findall(r"(?:^|[|;(] *|run --rm \w+ )(tritonctl [^|;)\n]*)", joined, re.MULTILINE)
    return [re.sub(r"\s+(#|[<>]+).*", "", line) for line in found]


def unknown_parts(line: str) -> list[str]:
    """Nouns, verbs and options of one command line that the command line does not have."""
    command: click.Command = app
    words = [word for word in shlex.split(line)[1:] if word != "…"]
    unknown = []
    while words:
        word = words.pop(0)
        if word.startswith("-") and len(word) > 1:
            name = word.partition("=")[0]
            options = [p for p in command.params if isinstance(p, click.Option)]
            option = next((o for o in options if name in (*o.opts, *o.secondary_opts)), None)
            if option is None and name not in ("--help", "--version"):
                unknown.append(word)
            elif option is not None and not option.is_flag and "=" not in word and words:
                words.pop(0)
        elif isinstance(command, click.Group):
            child = command.get_command(ROOT_CONTEXT, word)
            if child is None:
                return [*unknown, word]
            command = child
    return unknown


@pytest.mark.parametrize("path", EVERY_COMMAND)
def test_every_command_says_what_it_does_and_every_option_what_it_is(path: str) -> None:
    command = EVERY_COMMAND[path]

    assert command.get_short_help_str(200).strip() != ""
    settings = {**app.context_settings, "info_name": path}  # click keeps the help option of the first context
    with click.Context(command, **settings) as context:
        assert f"Usage: {path}" in command.get_help(context)


def test_every_noun_stands_in_the_readme() -> None:
    nouns = [noun for section in COMMANDS.values() for noun in section]

    assert [noun for noun in nouns if not re.search(rf"`(tritonctl )?{noun}`", README)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_in_the_documents_exist_with_their_options(document: str) -> None:
    lines = command_lines((ROOT / document).read_text())

    assert {line: found for line in lines if (found := unknown_parts(line))} == {}


def test_the_readme_has_commands_to_look_at() -> None:
    assert len(command_lines(README)) > 20


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert unknown_parts("tritonctl change aprove 1") == ["aprove"]
    assert unknown_parts("tritonctl change apply 1 --nowait") == ["--nowait"]
    assert unknown_parts("tritonctl rollback digits --env local --to 2 --reason 'x'") == []


def setting_names(model: type[BaseModel], prefix: str = "TRITONCTL") -> set[str]:
    names = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= setting_names(kind, f"{prefix}_{name.upper()}_")
        else:
            names.add(f"{prefix}_{name.upper()}" + ("__NAME" if name == "secrets" else ""))
    return names


def test_the_table_of_settings_is_complete() -> None:
    table = README.partition("## Settings")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `(TRITONCTL_\w+)`", table, re.MULTILINE)) == setting_names(Settings)


def test_the_table_of_exit_statuses_is_complete() -> None:
    table = README.partition("## Exit statuses")[2].partition("\n## ")[0]
    of_errors = {error.exit_code for error in whole_tree(ControlPlaneError)}

    assert {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == of_errors | {0}


def test_the_table_of_a_sweeps_spec_is_complete() -> None:
    chapter = README.partition("## Sweeps")[2].partition("\n## ")[0]
    table = "\n".join(line for line in chapter.splitlines() if line.startswith("  | `"))
    fields = [name for name in SweepSpec("m").to_json() if name != "search"]
    fields += ["load", "process", "rows", *(f"search.{name}" for name in Search().to_json())]
    shapes = [shape.value for shape in Shape]

    assert [name for name in [*fields, *SHORT] if f"`{name}`" not in table and f"`{name}: " not in table] == []
    assert [name for name in shapes if f"`{name}: " not in table] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_leads_to_one(document: str) -> None:
    path = ROOT / document
    targets = [link for link in re.findall(r"\]\(([^)#]+)", path.read_text()) if "://" not in link]

    assert [link for link in targets if not (path.parent / link).exists()] == []


def test_every_file_named_in_the_architecture_exists_with_the_functions_named_beside_it() -> None:
    """`path:name` names a function or class that the file defines; a path alone may be a folder."""
    text = (ROOT / "controlplane/ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:controlplane|clients|migrations|tests|deploy)/[\w./]*)(?::([\w.]+))?`", text)
    missing = []
    for path, name in named:
        file = ROOT / path
        defined = not name or (
            file.is_file()
            and all(
                re.search(rf"\b(def|class) {part}\b|^{part}\b", file.read_text(), re.MULTILINE)
                for part in name.split(".")
            )
        )
        if not file.exists() or not defined:
            missing.append(f"{path}:{name}")

    assert missing == []
    assert len(named) > 40
