# What a suite writes: rows with their reference side by side, and the machine that they were measured on.
from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PACKAGES = ("grpcio", "numpy", "onnx", "onnxruntime", "protobuf", "psycopg", "sqlalchemy", "tritonclient")


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of repeats that were measured by turns; `ratio` is value over reference, `low` and `high` its extremes over the
    turns: of six turns or more an interval of over 96 % for the median. `against` says what the reference is; a figure may
    stand alone, and without a `value` it says there why it is unproven."""

    name: str
    value: float | None
    unit: str
    reference: float | None = None
    ratio: float | None = None
    against: str = ""
    low: float | None = None
    high: float | None = None
    n: int = 1


@dataclass
class Report:
    suite: str
    rows: list[Row] = field(default_factory=list)
    _times: object = field(default_factory=psutil.cpu_times)

    def add(self, name: str, unit: str, values: Sequence[float], references: Sequence[float], against: str) -> None:
        """`values[i]` and `references[i]` were measured one after the other."""
        ratios = [value / reference for value, reference in zip(values, references, strict=True)]
        value, reference, ratio = (statistics.median(series) for series in (values, references, ratios))
        low, high = min(ratios), max(ratios)
        self.rows.append(Row(name, value, unit, reference, ratio, against, low, high, len(ratios)))
        print(
            f"  {name}: {value:.4g} {unit}; {against}: {reference:.4g}; "
            f"ratio {ratio:.3g} ({low:.3g} to {high:.3g}, n={len(ratios)})",
            flush=True,
        )

    def figure(self, name: str, unit: str, value: float) -> None:
        self.rows.append(Row(name, value, unit))
        print(f"  {name}: {value:.4g} {unit}", flush=True)

    def unproven(self, name: str, unit: str, why: str) -> None:
        self.rows.append(Row(name, None, unit, against=f"unproven: {why}"))
        print(f"  {name}: unproven: {why}", flush=True)

    def write(self) -> Path:
        """`build/bench/SUITE.json`, whole or not at all."""
        path = ROOT / "build" / "bench" / f"{self.suite}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        tree = {
            "suite": self.suite,
            "at": datetime.now(UTC).isoformat(),
            "fingerprint": {**fingerprint(), "steal": self._steal()},
            "rows": [asdict(row) for row in self.rows],
        }
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(tree, indent=2) + "\n")
        temporary.replace(path)
        return path

    def _steal(self) -> float:
        """The share of the processors' time that the host took away since the suite began: over a few percent, figures say more of
        the host than of what was measured."""
        now = psutil.cpu_times()
        passed = {name: getattr(now, name) - getattr(self._times, name) for name in now._fields}
        whole = sum(passed.values())
        return round(passed.get("steal", 0.0) / whole, 4) if whole else 0.0


def by_turns(turns: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Every measure once, then every measure again: what the machine does meanwhile meets all of them."""
    taken: list[list[float]] = [[] for _ in measures]
    for turn in range(turns):
        order = range(len(measures)) if turn % 2 == 0 else reversed(range(len(measures)))
        for index in order:
            taken[index].append(measures[index]())
    return taken


def fingerprint() -> dict[str, object]:
    """Hardware, system and versions; the load tells whether somebody else was at work."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")),
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "load": list(os.getloadavg()),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "CPU part")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
