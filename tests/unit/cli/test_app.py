# Exit codes, error output, contexts and formats of the command line, without an API.
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from clients.control import contexts
from clients.control.contexts import Context
from controlplane.cli.app import main
from controlplane.storage.checkpoint_files import ensure_signing_key, retired_verifiers

TRITONCTL = Path(sys.executable).parent / "tritonctl"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TRITONCTL_TOKEN", "TRITONCTL_CONTEXT", "TRITONCTL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITONCTL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_wrong_command_says_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "change", "aprove") == (
        2,
        "",
        "error [usage]: No such command 'aprove'. (Did you mean one of: 'approve', 'propose'?)\nnext: tritonctl change --help\n",
    )


@pytest.mark.parametrize(
    ("word", "said"), [("chnage", "No such command 'chnage'. Did you mean 'change'?"), ("x", "No such command 'x'.")]
)
def test_a_wrong_noun_is_met_with_the_nearest(capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    assert run(capsys, word, "list") == (2, "", f"error [usage]: {said}\nnext: tritonctl --help\n")


def test_a_missing_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "change", "propose", "digits", "--env", "local") == (
        2,
        "",
        "error [usage]: Missing option '--reason'.\nnext: tritonctl change propose --help\n",
    )


def test_two_trials_in_the_place_of_a_sweep_are_met_with_how_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "sweep", "compare", "1.3", "1.4")
    assert (code, "tritonctl sweep compare 1 3 OTHER" in err) == (2, True)


def test_a_spec_that_is_not_there_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "sweep", "run", "digits", "--spec", "nowhere.yaml")
    assert (code, err.count("nowhere.yaml")) == (2, 1)


def test_without_a_context_the_next_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "model", "list")
    assert (code, out) == (4, "")
    assert err == (
        "error [context.not_found]: no context is chosen\n"
        "next: tritonctl up, in another terminal; or tritonctl context set NAME --api URL --token-file FILE --use\n"
    )


def test_an_unknown_context_names_the_known_ones(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    contexts.put(home / "context.toml", "prod", Context("http://127.0.0.1:1", "t"))
    code, _, err = run(capsys, "--context", "dev", "model", "list")
    assert code == 4
    assert err == (
        "error [context.not_found]: there is no context 'dev'\n"
        "next: the contexts are prod: tritonctl context use NAME\n"
    )


def test_an_api_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    contexts.put(home / "context.toml", "here", Context("http://127.0.0.1:1", "t"))
    code, _, err = run(capsys, "model", "list")
    assert code == 9
    assert err.startswith("error [api.unreachable]: no connection to http://127.0.0.1:1: ")
    assert err.endswith("next: start it with 'tritonctl up', or choose another context\n")


def test_a_database_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, _, err = run(capsys, "db", "check")
    assert (code, err) == (
        9,
        f"error [database.not_ready]: there is no database at {home}/db.sqlite\nnext: tritonctl db upgrade\n",
    )


def test_an_installation_is_made_by_hand(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run(capsys, "db", "upgrade")[0] == 0
    assert run(capsys, "db", "check")[0] == 0
    code, out, err = run(capsys, "access", "bootstrap", "root", "--api", "http://127.0.0.1:1/")
    assert code == 0
    assert out.startswith("tcp_")
    assert out.strip() not in err
    assert contexts.find(home / "context.toml", None) == ("root", Context("http://127.0.0.1:1", out.strip()))
    assert run(capsys, "access", "bootstrap", "root")[0] == 5  # there is one
    code, out, _ = run(capsys, "audit", "verify", "--key", "x+00000000+AA==")
    assert (code, out) == (2, "")


def test_contexts_are_written_listed_used_and_removed(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    token = home.parent / "token"
    token.write_text("tcp_secret\n")
    assert run(capsys, "context", "set", "one", "--api", "http://a/", "--token-file", str(token))[0] == 0
    assert run(capsys, "context", "set", "two", "--api", "http://b")[0] == 0
    assert run(capsys, "context", "use", "two")[0] == 0
    assert run(capsys, "context", "list") == (0, "   NAME  API\n   one   http://a\n*  two   http://b\n", "")
    _, out, _ = run(capsys, "context", "show", "one", "-o", "json")
    assert json.loads(out) == {
        "name": "one",
        "api": "http://a",
        "token": "set",
        "audit_key": "",
        "checkpoint": "none seen",
    }
    assert "tcp_secret" not in out
    assert run(capsys, "context", "remove", "two")[0] == 0
    assert run(capsys, "context", "list", "-o", "yaml")[1] == yaml.safe_dump(
        [{"name": "one", "api": "http://a", "current": False}], sort_keys=False
    )


def test_another_address_forgets_what_was_seen_of_the_log(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    path = home / "context.toml"
    contexts.put(path, "one", Context("http://a", "t", "key", "seen"))
    run(capsys, "context", "set", "one", "--api", "http://a", "--use")
    assert contexts.read(path).contexts["one"] == Context("http://a", "t", "key", "seen")
    run(capsys, "context", "set", "one", "--api", "http://b")
    assert contexts.read(path).contexts["one"] == Context("http://b", "t")


@pytest.mark.parametrize("words", [(), ("change",)])
def test_without_a_command_the_real_command_prints_its_help(words: tuple[str, ...]) -> None:
    done = subprocess.run([TRITONCTL, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: tritonctl " + "".join(f"{word} " for word in words))


@pytest.mark.parametrize(
    ("line", "at", "offered"),
    [
        ("tritonctl ch", 1, ["change"]),
        ("tritonctl change ap", 2, ["approve", "apply"]),
        ("tritonctl audit rot", 2, ["rotate-key"]),
    ],
)
def test_tab_completes_what_the_real_command_knows(line: str, at: int, offered: list[str]) -> None:
    asked = {**os.environ, "_TRITONCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)}
    done = subprocess.run([TRITONCTL], env=asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"plain,{word}" for word in offered]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = run(capsys, "completion", shell)
    assert (code, "_TRITONCTL_COMPLETE" in out) == (0, True)


def test_what_is_no_npz_file_is_said_without_numpys_advice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text, pickled = tmp_path / "text.npz", tmp_path / "pickled.npz"
    text.write_text("1 2 3")
    np.savez(pickled, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    code, out, err = run(capsys, "infer", "m", "-e", "local", "--input", str(text))
    assert (code, out) == (2, "")
    assert err.startswith(f"error [usage]: Invalid value for --input: {text} is not an .npz file\n")
    code, out, err = run(capsys, "infer", "m", "-e", "local", "--input", str(pickled))
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error [usage]: Invalid value for --input: {pickled} cannot be read: it holds an array of Python objects; "
        "convert it before saving: array.astype(str)\n"
    )
    code, out, err = run(capsys, "model", "register", "m", str(text), "--samples", str(text))
    assert (code, out) == (2, "")
    assert err.startswith(f"error [usage]: Invalid value for --samples: {text} is not an .npz file\n")


def test_an_error_is_json_too_for_those_who_asked_for_json(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, out, err = run(capsys, "db", "check", "-o", "json")
    assert (code, out, json.loads(err)) == (
        9,
        "",
        {
            "error": {
                "code": "database.not_ready",
                "message": f"there is no database at {home}/db.sqlite",
                "hint": "tritonctl db upgrade",
                "details": {},
            }
        },
    )
    code, _, err = run(capsys, "-o", "json", "change", "show", "1", "--no-such-option")
    assert (code, json.loads(err)["error"]["code"]) == (2, "usage")
    assert run(capsys, "db", "upgrade")[0] == 0
    code, out, _ = run(capsys, "db", "check", "--output=json")
    assert (code, json.loads(out)["ready"]) == (0, True)


def test_the_signing_key_is_replaced_and_both_keys_are_printed(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, out, err = run(capsys, "audit", "rotate-key")
    assert (code, out) == (2, "")
    assert err.startswith("error [settings.invalid]: there is no signing key at ")
    file = home / "keys" / "audit.key"
    first = str(ensure_signing_key(file, "triton-controlplane").verifier)
    code, out, _ = run(capsys, "audit", "rotate-key", "-o", "json")
    second = str(ensure_signing_key(file, "triton-controlplane").verifier)
    assert (code, json.loads(out)) == (0, {"old": first, "new": second})
    assert first != second
    assert [str(verifier) for verifier in retired_verifiers(file)] == [first]
    code, out, err = run(capsys, "audit", "rotate-key")
    third = str(ensure_signing_key(file, "triton-controlplane").verifier)
    assert (code, out) == (0, f"old  {second}\nnew  {third}\n")
    assert f"tritonctl context set NAME --audit-key {third}\n" in err


def test_a_table_is_wrapped_to_the_terminal_and_words_of_people_are_no_states(home: Path) -> None:
    api = "http://a-host-with-a-long-name.example.org:8080"
    contexts.put(home / "context.toml", "none", Context(api, "t"))
    ours, theirs = os.openpty()
    asked = {**os.environ, "COLUMNS": "40", "TERM": "xterm"}
    subprocess.run([TRITONCTL, "context", "list"], env=asked, stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 4096).decode().replace("\r\n", "\n")
    os.close(ours)
    plain = click.unstyle(shown).splitlines()
    assert max(map(len, plain)) <= 40
    assert "".join(line[9:] for line in plain[1:]).replace(" ", "") == api
    assert "\x1b[32m" not in shown  # green
