# The command line of the load generator: its help, what it refuses before it asks any server, and how fast it says so.
from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from clients.load.command import load
from clients.load.errors import LoadInputError
from clients.load.flags import SECTIONS
from clients.load.options import Options
from clients.load.requests import Asked
from clients.load.subject import address, header

GOLDEN = Path(__file__).with_name("help.txt")
NOBODY = "127.0.0.1:1"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(load, [*words, "--url", NOBODY], prog_name="python -m clients.load")


def test_the_help_is_the_golden_one() -> None:
    settings = {**load.context_settings, "terminal_width": 100, "max_content_width": 100}
    shown = click.Context(load, info_name="python -m clients.load", **settings).get_help() + "\n"
    if os.environ.get("TRITONCTL_GOLDEN") == "write":
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


def test_every_option_of_the_library_is_one_of_the_command() -> None:
    options = {option.name: option for section in SECTIONS.values() for option in section}
    known = {field.name for field in fields(Options)}
    assert set(options) - known == {"form", "raw"}
    assert known - set(options) == {"models"}


def test_the_defaults_of_the_command_are_those_of_the_library() -> None:
    given = load.make_context("load", ["digits"]).params
    del given["form"], given["raw"]
    assert Options(**given) == Options(models=("digits",))


def test_the_help_loads_neither_numpy_nor_grpc() -> None:
    code = (
        "import sys, clients.load.command; print(sorted({'numpy', 'scipy', 'grpc', 'tritonclient'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument"),
        (["m", "--rate", "5", "--concurrency", "2"], "--concurrency and --rate at once"),
        (["m", "--concurrency", "0"], "0 calls cannot be in flight"),
        (["m", "--concurrency", "4:1:1"], "'4:1:1' leads nowhere"),
        (["m", "--rate", "fast"], "'fast' is no rate"),
        (["m", "--find-rate", "1:9"], "--limit 'p99<=10ms'"),
        (["m", "--find-rate", "9:1", "--limit", "p99<=1ms"], "--find-rate 9:1 leads nowhere"),
        (["m", "--find-rate", "1:9", "--rate", "5", "--limit", "p99<=1ms"], "--find-rate and --rate at once"),
        (["m", "--limit", "p99=fast"], "'p99=fast' is no limit"),
        (["m", "--limit", "p100<=1ms"], "'p100<=1ms' is no limit"),
        (["m", "--seconds", "0"], "--seconds"),
        (["m", "--raw", "x.parquet"], "x.parquet is no .npz file"),
        (["m", "--raw", "/nowhere/x.npz"], "there is no directory /nowhere"),
        (["m=0=0"], "'m=0=0' is no model"),
        (["m", "--header", "Key"], "'Key' is no header"),
        (["m", "--tls-key", "/key"], "go together"),
        (["m", "--tls-root", "/nowhere/root.pem"], "/nowhere/root.pem cannot be read"),
        (["m", "--transport", "http2", "--tls"], "plain text"),
        (["m", "--sequence-length", "none"], "--sequence-length none is no length"),
        (["m", "--trace", "/nowhere/trace"], "/nowhere/trace cannot be read"),
        (["m", "--shape", "3,224"], "--shape 3,224 is no shape"),
        (["m", "--shape", "X:3,,4"], "--shape X:3,,4 is no shape"),
        (["m", "--range", "5"], "--range 5 is no range"),
        (["m", "--range", "5:1"], "--range 5:1 is empty"),
    ],
)
def test_wrong_input_is_refused_before_a_server_is_asked(words: list[str], said: str) -> None:
    result = invoke(*words)
    assert said in result.output
    assert result.exit_code == 2


def test_a_server_that_is_not_there_has_a_status_of_its_own_and_the_next_step() -> None:
    result = invoke("m")
    assert f"no Triton answers at {NOBODY}" in result.stderr
    assert "next: give the address of its gRPC endpoint" in result.stderr
    assert (result.exit_code, result.stdout) == (9, "")


def test_a_server_in_plain_text_may_be_what_tls_does_not_find() -> None:
    assert "without --tls where it speaks plain text" in invoke("m", "--tls").stderr
    assert "--tls" not in invoke("m").stderr


def test_models_are_read_with_version_and_weight() -> None:
    assert [Asked.parse(text) for text in ("a", "a:2", "a=3", "a:2=0.5")] == [
        Asked("a", None, 1), Asked("a", 2, 1), Asked("a", None, 3), Asked("a", 2, 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h", ("h", 8001)),
        ("h:1", ("h", 1)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 8001)),
        (" a.b:80 ", ("a.b", 80)),
    ],
)
def test_addresses_have_a_port_or_the_usual_one(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize("text", ["", "http://h:1", "h:1:2", "h:x", "::1", "h:99999", "h/p"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(LoadInputError, match="is no address"):
        address(text)


def test_a_header_is_a_key_and_a_value() -> None:
    assert header("triton-grpc-protocol-admin-key=a=b") == ("triton-grpc-protocol-admin-key", "a=b")


def test_the_commands_in_the_readme_are_understood() -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text()
    lines = re.findall(r"^python -m clients\.load (.*)$", readme, re.MULTILINE)
    assert len(lines) > 3
    for line in lines:
        load.make_context("load", shlex.split(line.partition(" > ")[0], comments=True))
