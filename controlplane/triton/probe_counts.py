# Probes answered by each instance, as the backends of a server that we launched count them in files.
from __future__ import annotations

from pathlib import Path


def counted_probes(directory: Path, model: str, version: int) -> dict[str, int] | None:
    """Probes by instance (`NAME:PID`); None when no instance of the version has counted any. What a dead backend left
    stays, so only growth says that an instance is there."""
    found = {}
    for path in (directory / model / str(version)).glob("[!.]*"):
        try:
            found[path.name] = int(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # its backend ended just now
            continue
    return found or None
