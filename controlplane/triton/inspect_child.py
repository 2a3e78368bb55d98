# The inspection's child process: `python -m controlplane.triton.inspect_child REQUEST`, where REQUEST is a JSON file.
"""The request names the artifact's directory, the samples, the limits, and whether the version is opaque. The answer is
`result.json` beside it: `{"inspection": …}` with the golden's bytes in `golden.npz`, or `{"error": …}`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlplane.domain.catalog import Golden, GoldenMode, Inspection, Signature
from controlplane.domain.golden import dump_cases, load_cases
from controlplane.errors import ArtifactInvalid, InvalidInput, ModelInvalid
from controlplane.triton.inspect_process import limit_self

RESULT_FILE = "result.json"
GOLDEN_FILE = "golden.npz"
STAGE_FILE = "stage"
_FILE_BYTES = 1024**3


def main(request_path: Path) -> None:
    request = json.loads(request_path.read_bytes())
    work = request_path.parent
    limit_self(memory_bytes=request["memory_bytes"], seconds=request["seconds"], file_bytes=_FILE_BYTES)
    deadline = time.monotonic() + request["seconds"]
    directory = Path(request["directory"])
    samples = None if request["samples"] is None else Path(request["samples"])
    try:
        found = (
            _opaque(samples, request["backend"], work)
            if request["opaque"]
            else _onnx(directory, samples, work, deadline)
        )
        answer: dict[str, Any] = {"inspection": found.to_json()}
    except InvalidInput as error:
        answer = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    except MemoryError:
        answer = {"error": {"code": ModelInvalid.code, "message": "validation ran out of memory", "hint": None}}
    (work / RESULT_FILE).write_text(json.dumps(answer), encoding="utf-8")


def _onnx(directory: Path, samples: Path | None, work: Path, deadline: float) -> Inspection:
    # Imported late: the limits of memory and time hold for these libraries too.
    import onnxruntime

    from controlplane.triton import inspect_graph
    from controlplane.triton.golden_measure import record

    def stage(text: str) -> None:
        (work / STAGE_FILE).write_text(text, encoding="utf-8")

    stage("reading the graph")
    facts = inspect_graph.read_facts(directory)
    stage("checking the graph")
    inspect_graph.check(directory)
    stage("opening the graph in onnxruntime")
    session = inspect_graph.open_session(directory, optimized=True)
    inputs, outputs = inspect_graph.specs(session)
    stage("running the graph")
    recording = record(directory, session, inputs, outputs, samples, deadline=deadline)
    signature = Signature(
        inputs=inputs,
        outputs=outputs,
        batching=recording.batching,
        opset=facts.opset,
        ir_version=facts.ir_version,
        producer=facts.producer,
        metadata=facts.metadata,
    )
    golden = None
    if recording.cases:
        golden = Golden(
            blob="",
            cases=len(recording.cases),
            mode=recording.mode,
            source=recording.source,
            absolute=tuple(sorted(recording.absolute.items())),
            relative=tuple(sorted(recording.relative.items())),
        )
        (work / GOLDEN_FILE).write_bytes(dump_cases(recording.cases))
        recording.notes.append(f"golden inferences recorded by onnxruntime {onnxruntime.__version__} on the CPU")
    return Inspection(signature, golden, "onnxruntime", tuple(recording.skipped), tuple(recording.notes))


def _opaque(samples: Path | None, backend: str, work: Path) -> Inspection:
    """No graph that we can read: what remains is the digest, and answers that the user recorded."""
    digest_only = "graph, signature and batching: not checked for this backend, digest only"
    found = Inspection(None, None, backend, (digest_only,))
    if samples is None:
        return replace(found, skipped=(*found.skipped, "golden inference: no samples were given"))
    from controlplane.triton.golden_measure import FLOORS

    cases = load_cases(samples.read_bytes())
    if not cases or not all(case.inputs and case.outputs for case in cases):
        raise ArtifactInvalid(
            "the samples of an opaque version must hold inputs and outputs of each case",
            hint="name the arrays case0.in.<input> and case0.out.<output>",
        )
    (work / GOLDEN_FILE).write_bytes(dump_cases(cases))
    floors = {name: FLOORS.get(a.dtype.str[1:], 0.0) for case in cases for name, a in case.outputs.items()}
    tolerance = tuple((name, f"{floor:f}".rstrip("0").rstrip(".")) for name, floor in sorted(floors.items()))
    mode = GoldenMode.TOLERANCE if any(floors.values()) else GoldenMode.EXACT
    golden = Golden("", len(cases), mode, "samples", tolerance, tolerance)
    return replace(found, golden=golden, notes=("golden tolerance by datatype, not measured",))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
