# Where files lie while a service works on them, free of what a process that was killed left there.
from __future__ import annotations

import contextlib
import shutil
import time
from datetime import timedelta
from pathlib import Path

GRACE = timedelta(days=1)
"""No upload, registration or export that is still going on is older."""


def stage(directory: Path, prefix: str) -> None:
    """Make the directory, and remove what is old there and whose name begins with `prefix`."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):  # its owner has finished just now
            if path.stat().st_mtime < time.time() - GRACE.total_seconds():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
