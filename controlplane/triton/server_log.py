# Reading what a Triton server wrote to its log while a call was under way.
"""Only for people: what is found is attached to an error, and nothing is decided by it."""

from __future__ import annotations

from pathlib import Path

_MAX_BYTES = 1024 * 1024
_POLL_FAILED = "Poll failed for model directory"


class ServerLog:
    """The log file of a server on this machine; it may be missing, and may be cut or replaced at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def end(self) -> int:
        """A mark for `since`, in bytes."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def since(self, mark: int) -> str:
        """What was appended after `mark`, at most its last MiB; from the beginning when the file is shorter than that."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                start = mark if mark <= size else 0
                file.seek(max(start, size - _MAX_BYTES))
                return file.read(_MAX_BYTES).decode(errors="replace")
        except OSError:
            return ""


def poll_failure(text: str, model: str) -> str | None:
    """Why Triton could not read the model's directory: the line that says so, with the complaint of the protobuf parser
    before it, if there is one."""
    parser = ""
    found: str | None = None
    for line in text.splitlines():
        if "libprotobuf ERROR" in line:
            parser = line.partition("] ")[2].strip()
        elif _POLL_FAILED in line:
            if f"{_POLL_FAILED} '{model}'" in line:
                said = line[line.index(_POLL_FAILED) :].strip().strip('"')
                found = f"{said} ({parser})" if parser else said
            parser = ""
    return found
