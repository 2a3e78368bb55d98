# Whether the kernel killed a process for want of memory: the same death as any other, but for its counter.
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Killed:
    """How many processes were killed so far, on the machine and in this container's group."""

    count: int

    @classmethod
    def now(cls, root: Path = Path("/")) -> Killed | None:
        """None where nobody counts."""
        counts = []
        for path in (root / "proc/vmstat", root / "sys/fs/cgroup/memory.events"):
            try:
                fields = dict(line.split() for line in path.read_text().splitlines())
            except (OSError, ValueError):
                continue
            if fields.get("oom_kill", "").isdigit():
                counts.append(int(fields["oom_kill"]))
        return cls(max(counts)) if counts else None

    @staticmethod
    def since(before: Killed | None) -> str:
        """In words; empty where none was, or nobody counts."""
        now = Killed.now()
        if before is None or now is None or now.count <= before.count:
            return ""
        return "the kernel killed a process meanwhile, as memory ran out"
