# Whether the kernel says that it killed a process for want of memory.
from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.bench.memory import Killed


def counted(root: Path, machine: str | None, group: str | None) -> Killed | None:
    for name, text in (("proc/vmstat", machine), ("sys/fs/cgroup/memory.events", group)):
        if text is not None:
            (root / name).parent.mkdir(parents=True)
            (root / name).write_text(text)
    return Killed.now(root)


@pytest.mark.parametrize(
    ("machine", "group", "expected"),
    [
        ("nr_free_pages 12\noom_kill 3\n", None, Killed(3)),
        ("nr_free_pages 12\noom_kill 0\n", "low 0\noom 2\noom_kill 2\noom_group_kill 0\n", Killed(2)),
        ("nr_free_pages 12\n", None, None),
        (None, None, None),
    ],
)
def test_the_machine_or_the_group_counts(
    tmp_path: Path, machine: str | None, group: str | None, expected: Killed | None
) -> None:
    assert counted(tmp_path, machine, group) == expected


def test_it_is_said_only_where_one_was_killed_since() -> None:
    assert Killed.since(Killed.now()) == ""
    assert Killed.since(None) == ""
    assert Killed.since(Killed(-1)) == "the kernel killed a process meanwhile, as memory ran out"
