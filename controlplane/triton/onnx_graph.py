# OnnxInspector: validates what was registered, in a child process that nothing it reads can make us share the fate of.
from __future__ import annotations

import importlib.util
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Inspection
from controlplane.errors import ArtifactInvalid, InvalidInput, ModelInvalid, NameInvalid, RuntimeUnavailable
from controlplane.triton.inspect_child import GOLDEN_FILE, RESULT_FILE, STAGE_FILE
from controlplane.triton.inspect_process import ChildEnd, InspectionLimits, run_child

_MAX_RESULT_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 4 * 1024 * 1024
_ERRORS: dict[str, type[InvalidInput]] = {kind.code: kind for kind in (ArtifactInvalid, ModelInvalid, NameInvalid)}


class BlobSink(Protocol):
    """The part of the artifact store that an inspection needs."""

    def add_stream(self, chunks: Iterator[bytes], expected_sha256: str | None = None) -> tuple[str, int]: ...


class OnnxInspector:
    """The `Inspector` of services/ports.py. Safe for several threads; each call is a process of its own, and no more than
    `at_once` of them run, because each may use as much memory as its limit says."""

    def __init__(self, limits: InspectionLimits | None = None, *, at_once: int = 2) -> None:
        self._limits = limits if limits is not None else InspectionLimits()
        self._turns = threading.BoundedSemaphore(at_once)

    def inspect(
        self, directory: Path, *, samples: Path | None, store: BlobSink, opaque_config: JsonObject | None = None
    ) -> Inspection:
        if opaque_config is None and importlib.util.find_spec("onnxruntime") is None:
            raise RuntimeUnavailable(
                "onnxruntime is not installed, so graphs cannot be validated",
                hint="pip install 'triton-controlplane[cpu]', or [gpu]",
            )
        size = sum(path.lstat().st_size for path in directory.rglob("*"))
        seconds, memory = self._limits.seconds_for(size), self._limits.memory_for(size)
        with self._turns, tempfile.TemporaryDirectory(prefix="tritonctl-inspect-") as name:
            work = Path(name)
            request = {
                "directory": str(directory.resolve()),
                "samples": None if samples is None else str(samples.resolve()),
                "opaque": opaque_config is not None,
                "backend": _backend_of(opaque_config or {}),
                "memory_bytes": memory,
                "seconds": seconds,
            }
            (work / "request.json").write_text(json.dumps(request), encoding="utf-8")
            end = run_child(
                "controlplane.triton.inspect_child", [str(work / "request.json")], work=work, seconds=seconds
            )
            answer = _answer(work, end, seconds, memory)
            error = answer.get("error")
            if error is not None:
                raise _ERRORS.get(error["code"], ModelInvalid)(error["message"], hint=error["hint"])
            inspection = Inspection.from_json(answer["inspection"])
            if inspection.golden is None:
                return inspection
            blob, _ = store.add_stream(_chunks(work / GOLDEN_FILE))
            return replace(inspection, golden=replace(inspection.golden, blob=blob))


def _answer(work: Path, end: ChildEnd, seconds: int, memory: int) -> dict[str, Any]:
    stage = work / STAGE_FILE
    doing = stage.read_text(encoding="utf-8") if stage.exists() else "starting"
    if end.timed_out or end.status in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise ModelInvalid(
            f"validation did not come to an end: it was stopped after {seconds} s while {doing}",
            hint="a graph that loops for ever cannot be served; give a slow one smaller samples",
        )
    result = work / RESULT_FILE
    if end.status != 0 or not result.exists() or result.stat().st_size > _MAX_RESULT_BYTES:
        how = f"signal {signal.Signals(-end.status).name}" if end.status < 0 else f"status {end.status}"
        last = end.complaint.splitlines()[-1][:300] if end.complaint else "no message"
        raise ModelInvalid(
            f"validation broke down while {doing} ({how}: {last})",
            hint=f"the file is damaged, or needs more than {memory // 2**20} MiB to be opened",
        )
    answer: dict[str, Any] = json.loads(result.read_bytes())
    return answer


def _backend_of(config: JsonObject) -> str:
    if "ensemble_scheduling" in config:
        return "ensemble"
    return str(config.get("backend") or config.get("platform") or "unknown")


def _chunks(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  # a descriptor that followed no link
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
