# Commands of the demo: shown as typed, and a demo that ends when one does not do what the story says.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.demo.narrator import Narrator
from controlplane.demo.stage import Stage
from controlplane.errors import DemoFailed


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("TRITONCTL_TOKEN", "another installation's")
    monkeypatch.setenv("TRITONCTL_DATABASE__URL", "sqlite:////nowhere/db.sqlite")
    made = Stage(Narrator(), tmp_path, None, keep=False)
    yield made
    made.close()
    assert not made.home.exists()


def test_a_command_runs_in_the_desk_and_is_shown_with_what_it_prints(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    (stage.desk / "a file").write_text("words\n")
    stage.run("cat 'a file'", says=("words",))
    assert capsys.readouterr().out == "\n$ cat 'a file'\nwords\n"


def test_another_exit_status_than_the_one_told_ends_the_demo(stage: Stage) -> None:
    stage.run("false", exits=1)
    with pytest.raises(DemoFailed, match=r"^not as told: `false` exits with 1, not with 0"):
        stage.run("false")


def test_words_that_are_missing_from_the_output_end_the_demo(stage: Stage) -> None:
    with pytest.raises(DemoFailed, match=r"^not as told: `echo yes` does not say 'no'$"):
        stage.run("echo yes", says=("no",))


def test_commands_see_no_setting_but_the_demos_own(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.run("env")
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("TRITONCTL_")]
    assert sorted(shown) == ["TRITONCTL_API__PORT=0", f"TRITONCTL_HOME={stage.home}"]
