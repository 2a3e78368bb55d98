# What people see of tables, facts and sentences on terminals of several widths, and what a pipe gets.
from __future__ import annotations

import os
import subprocess
import sys
import termios

import click
import pytest

WHY = "trial 3.2 has the best product of its figures; tritonctl sweep propose 3.2 --env prod makes a change of it"
ROWS = f"table(('TRIAL', 'P99', 'WHY'), [('3.2', '4.5 (4.1 to 4.9)', {WHY!r}), ('3.3', '5', 'worse')])"


def shown(code: str, columns: int) -> list[str]:
    """The lines that a process writes to a real terminal of so many columns."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (50, columns))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    script = f"from controlplane.cli.output import facts, prose, table\n{code}"
    subprocess.run([sys.executable, "-c", script], stdout=slave, env=environment, check=True, timeout=60)
    os.close(slave)
    written = os.read(master, 65536).decode()
    os.close(master)
    return [click.unstyle(line) for line in written.splitlines()]


def piped(code: str) -> list[str]:
    script = f"from controlplane.cli.output import facts, prose, table\n{code}"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return ran.stdout.splitlines()


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_on_a_terminal_a_sentence_goes_on_below_where_it_began(columns: int) -> None:
    lines = shown(f"prose({WHY!r}, '  note: ')", columns)
    assert len(lines) > 1
    assert all(len(line) <= columns for line in lines)
    assert lines[0].startswith("  note: trial")
    assert all(line.startswith(" " * 8) and line[8] != " " for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == f"note: {WHY}"


def test_facts_are_wrapped_beside_their_names() -> None:
    lines = shown(f"facts([('reason', {WHY!r}), ('state', 'worse')])", 60)
    assert all(len(line) <= 60 for line in lines)
    assert lines[0].startswith("reason  trial 3.2")
    assert lines[1].startswith(" " * 8)
    assert lines[-1] == "state   worse"


def test_digests_are_not_cut_in_two() -> None:
    digest = "sha256:" + "ab" * 32
    assert digest in "".join(shown(f"facts([('config', 'it is {digest}')])", 40)).replace(" ", "\n").split("\n")


def test_a_table_wraps_its_widest_column_until_it_fits() -> None:
    lines = shown(ROWS, 70)
    assert all(len(line) <= 70 for line in lines)
    assert lines[0].split() == ["TRIAL", "P99", "WHY"]
    start = lines[0].index("WHY")
    assert " ".join(line[start:] for line in lines[1:-1]) == WHY
    assert lines[-1].endswith("worse")


def test_a_table_that_cannot_fit_is_a_record_for_each_row() -> None:
    lines = shown(ROWS, 30)
    assert lines[0] == "trial  3.2"
    assert lines[1] == "p99    4.5 (4.1 to 4.9)"
    assert all(len(line) <= 30 for line in lines)
    blank = lines.index("")
    assert lines[blank + 1 :] == ["trial  3.3", "p99    5", "why    worse"]


def test_a_pipe_gets_every_line_whole() -> None:
    assert piped(f"prose({WHY!r})") == [f"  {WHY}"]
    assert [line.split("  ")[0] for line in piped(ROWS)] == ["TRIAL", "3.2", "3.3"]
    assert piped(ROWS)[1].endswith(WHY)


def test_a_table_cuts_no_word_in_two() -> None:
    name, path = "digits-mlp-int8-quantized-v2", "max_queue_delay_microseconds=500"
    row = f"table(('MODEL', 'PARAMETERS', 'WHY'), [({name!r}, {path!r}, {WHY!r})])"
    for columns in (120, 100, 80, 60):
        words = " ".join(shown(row, columns)).split()
        assert name in words
        assert path in words
    assert shown(row, 80)[0].split() == ["MODEL", "PARAMETERS", "WHY"]
    assert shown(row, 60)[0] == f"model       {name}"


def test_a_line_of_spaces_alone_is_no_error() -> None:
    assert [line.strip() for line in shown(f"prose({' ' * 100!r} + chr(10) + 'after')", 40)] == ["", "after"]
