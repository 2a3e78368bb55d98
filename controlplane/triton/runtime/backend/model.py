# The onnxruntime backend of the embedded Triton, run by its Python backend: names, rules and messages follow NVIDIA's C++ one.
"""Runs inside Triton's stub processes on the runtime environment's Python, so it imports nothing of ours.

Refused at load, though the C++ backend has them: ragged inputs, batch_input and batch_output, implicit sequence state,
execution accelerators. Out of reach from here: `--backend-config=onnxruntime,...`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

# onnxruntime is imported where it is used: completing a complete config then costs no import.

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Config = dict[str, Any]
T = TypeVar("T")

DEFAULT_MAX_BATCH_SIZE = 4  # the C++ backend's, for a graph that can batch and a config that says nothing
PROBE = "probe/"

_WHOLE = ("bool", "string", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
TYPES = {f"tensor({name})": f"TYPE_{name.upper()}" for name in _WHOLE} | {
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}


class ModelError(Exception):
    """A failure whose text is meant for the operator or the client."""


class TritonPythonModel:
    """One instance of one version of a model: Triton's interface to a Python-based backend."""

    @staticmethod
    def auto_complete_config(auto: Any) -> Any:
        config = auto.as_dict()
        if config.get("input") and config.get("output"):
            return auto  # as the C++ backend: then nothing is completed, not even max_batch_size
        session = open_session(config, Path(pb_utils.get_model_dir()), only_look=True)
        complete_batching(auto, config, session)
        batched = config["max_batch_size"] > 0
        for key, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
            config[key] = config.get(key) or [describe(tensor, batched) for tensor in tensors]
        return auto

    def initialize(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.session = open_session(config, Path(args["model_repository"]) / args["model_version"])
        check_config(config, self.session)
        self.batched = config["max_batch_size"] > 0
        self.outputs = [output["name"] for output in config["output"]]
        # Triton has no rank 0: a scalar of the graph travels in the shape that the config gives it.
        self.scalar_inputs = {tensor.name for tensor in self.session.get_inputs() if not graph_dims(tensor)}
        self.scalar_shapes = {output["name"]: [int(d) for d in output["dims"]] for output in config["output"]}
        self.run_options = run_options(config)
        self.probes = ProbeCounter(args)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        # No exception may leave this function: each one can leak the requests' response factories in python_backend
        # 24.10, and the version then never finishes unloading.
        try:
            return self.answer(requests)
        except Exception as error:
            return [self.refuse(error) for _ in requests]

    def finalize(self) -> None:
        del self.session

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        places: list[int] = []
        feeds: list[Feeds] = []
        wanted: list[set[str]] = []
        for place, request in enumerate(requests):
            try:
                names = set(request.requested_output_names())
                feeds.append(self.read(request))
            except Exception as error:
                responses[place] = self.refuse(error)
            else:
                wanted.append(names)
                places.append(place)
        for place, response in zip(places, self.run(feeds, wanted), strict=True):
            responses[place] = response
        for request, response in zip(requests, responses, strict=True):
            if request.request_id().startswith(PROBE) and not response.has_error():
                self.probes.increment()
        return responses

    def read(self, request: Any) -> Feeds:
        feeds: Feeds = {}
        for tensor in request.inputs():
            name, value = tensor.name(), tensor.as_numpy()
            if value.dtype == np.object_:
                value = decoded(name, value)
            feeds[name] = value.reshape(()) if name in self.scalar_inputs else value
        return feeds

    def run(self, feeds: list[Feeds], wanted: list[set[str]]) -> list[Any]:
        """One response for each; together where that works, else one by one, so that only the bad ones fail."""
        if self.batched and len(feeds) > 1:
            try:
                return self.run_together(feeds, wanted)
            except Exception as error:
                pb_utils.Logger.log_verbose(f"{len(feeds)} requests are run one by one: {error}")
        return [self.run_alone(feed, names) for feed, names in zip(feeds, wanted, strict=True)]

    def run_alone(self, feeds: Feeds, wanted: set[str]) -> Any:
        try:
            names = [name for name in self.outputs if name in wanted]
            return self.respond(self.run_session(names, feeds), wanted)
        except Exception as error:
            return self.refuse(error)

    def run_together(self, feeds: list[Feeds], wanted: list[set[str]]) -> list[Any]:
        names = [name for name in self.outputs if any(name in some for some in wanted)]
        batch = {key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]}
        results = self.run_session(names, batch)
        responses = []
        start = 0
        for feed, some in zip(feeds, wanted, strict=True):
            end = start + rows(feed)
            responses.append(self.respond({name: array[start:end] for name, array in results.items()}, some))
            start = end
        return responses

    def run_session(self, names: list[str], feeds: Feeds) -> Feeds:
        results = dict(zip(names, self.session.run(names, feeds, self.run_options), strict=True))
        for name, array in results.items():
            if self.batched and (array.ndim == 0 or len(array) != rows(feeds)):
                raise ModelError(f"output '{name}' has shape {list(array.shape)} for a batch of {rows(feeds)}")
        return results

    def respond(self, arrays: Feeds, wanted: set[str]) -> Any:
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, array if array.ndim else array.reshape(self.scalar_shapes[name]))
                for name, array in arrays.items()
                if name in wanted
            ]
        )

    def refuse(self, error: Exception) -> Any:
        if isinstance(error, ModelError):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(ort_text(error), pb_utils.TritonError.INTERNAL))


class ProbeCounter:
    """Counts in a file `model/version/instance:pid` below the directory that the server's launcher named, if any did.

    Not a custom metric: in Triton 24.10 a backend process that destroys one can read a reply that was never written, die
    with the lock of the shared memory in its hands, and take the server with it.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        place = Path(os.environ.get("TRITONCTL_PROBES", "")) / args["model_name"] / args["model_version"]
        self.path = place / f"{args['model_instance_name']}:{os.getpid()}"
        self.count = 0

    def increment(self) -> None:
        self.count += 1
        if self.path.is_absolute():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(str(self.count))


def rows(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def decoded(name: str, value: Array) -> Array:
    """Strings arrive as bytes; onnxruntime's Python interface takes only text, and would cut it at a NUL."""
    texts = np.empty(value.size, dtype=np.object_)
    try:
        texts[:] = [item.decode() for item in value.ravel()]
    except UnicodeDecodeError:
        raise ModelError(f"input '{name}': this backend takes only UTF-8 strings") from None
    return texts.reshape(value.shape)


def ort_text(error: Exception) -> str:
    match = re.match(r"\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", str(error), re.DOTALL)
    return f"onnx runtime error {match[1]}: {match[2]}" if match else f"onnx runtime error: {error}"


def parameter(config: Config, key: str, parse: Callable[[str], T], default: T) -> T:
    if key not in config.get("parameters", {}):
        return default
    text = config["parameters"][key].get("string_value", "")
    try:
        return parse(text)
    except ValueError:
        raise ModelError(f"parameter '{key}' has the invalid value '{text}'") from None


def switch(text: str) -> bool:
    if text.lower() in {"1", "true"}:
        return True
    if text.lower() in {"0", "false"}:
        return False
    raise ValueError(text)


def open_session(config: Config, version_directory: Path, *, only_look: bool = False) -> Any:
    """The onnxruntime session; with `only_look` one that need not be fast, only say what the graph takes and gives."""
    path = version_directory / (config.get("default_model_filename") or "model.onnx")
    if path.is_dir():
        path /= "model.onnx"
    if not path.exists():
        raise ModelError(f"unable to find '{path}' for model instance '{config['name']}'")
    import onnxruntime

    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        raise ModelError(f"unknown Execution Accelerator '{accelerator['name']}' is requested")
    options = session_options(config)
    if only_look:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(ort_text(error)) from None


def session_options(config: Config) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    known = {-1: levels.ORT_ENABLE_BASIC, 1: levels.ORT_ENABLE_EXTENDED, 2: levels.ORT_DISABLE_ALL}
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = known.get(level, levels.ORT_ENABLE_ALL)
    mode = parameter(config, "execution_mode", int, 0)
    if mode not in {0, 1}:
        raise ModelError(
            f"Invalid configuration value provided. Expected values for execution_mode are 0 or 1 but got {mode} ."
        )
    modes = onnxruntime.ExecutionMode
    options.execution_mode = modes.ORT_PARALLEL if mode else modes.ORT_SEQUENTIAL
    options.intra_op_num_threads = max(0, parameter(config, "intra_op_thread_count", int, 0))
    options.inter_op_num_threads = max(0, parameter(config, "inter_op_thread_count", int, 0))
    options.enable_cpu_mem_arena = parameter(config, "enable_mem_arena", switch, options.enable_cpu_mem_arena)
    options.enable_mem_pattern = parameter(config, "enable_mem_pattern", switch, options.enable_mem_pattern)
    for key, value in config.get("parameters", {}).items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value.get("string_value", ""))
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def run_options(config: Config) -> Any:
    shrinkage = parameter(config, "memory.enable_memory_arena_shrinkage", str, "")
    if not shrinkage:
        return None
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrinkage)
    return options


def graph_dims(tensor: Any) -> list[int]:
    return [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in tensor.shape or []]


def graph_type(tensor: Any) -> str:
    if not tensor.type.startswith("tensor("):
        raise ModelError(f"Unsupported ONNX Type '{tensor.type}' for I/O '{tensor.name}', expected 'ONNX_TYPE_TENSOR'.")
    return TYPES.get(tensor.type, "TYPE_INVALID")


def complete_batching(auto: Any, config: Config, session: Any) -> None:
    tensors = [*session.get_inputs(), *session.get_outputs()]
    if all(graph_dims(tensor)[:1] == [-1] for tensor in tensors):
        if config["max_batch_size"] == 0:
            auto.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
        if config["max_batch_size"] > 1 and "sequence_batching" not in config:
            auto.set_dynamic_batching()
    elif config["max_batch_size"] != 0:
        raise ModelError(
            f"autofill failed for model '{config['name']}': model does not support batching while non-zero "
            "max_batch_size is specified"
        )


def describe(tensor: Any, batched: bool) -> Config:
    dims = graph_dims(tensor)[1 if batched else 0 :]
    entry: Config = {"name": tensor.name, "data_type": graph_type(tensor), "dims": dims or [1]}
    if batched and not dims:
        entry["reshape"] = {"shape": []}
    return entry


def check_config(config: Config, session: Any) -> None:
    """Refuse a config that does not fit the graph, or asks for what this backend cannot do."""
    model = config["name"]
    refuse_unsupported(config)
    batched = config["max_batch_size"] > 0
    controls = {control["name"] for control in config.get("sequence_batching", {}).get("control_input", [])}
    required = {tensor.name: tensor for tensor in session.get_inputs()}
    optional = {tensor.name: tensor for tensor in session.get_overridable_initializers()}
    expected = sum(not entry.get("optional") for entry in config["input"]) + len(controls)
    if len(required) != expected:
        raise ModelError(
            f"unable to load model '{model}', configuration expects {expected} inputs, model provides {len(required)}"
        )
    for entry in config["input"]:
        if entry.get("optional") and batched:
            raise ModelError(
                f"unable to load model '{model}', optional input '{entry['name']}' is not supported for models that "
                "support batching"
            )
        check_tensor(config, entry, {**optional, **required}, "input")
    for entry in config["output"]:
        check_tensor(config, entry, {tensor.name: tensor for tensor in session.get_outputs()}, "output")
    for control in controls - set(required):
        raise ModelError(f"configuration specified sequence control '{control}', but model does not provide that input")


def refuse_unsupported(config: Config) -> None:
    reasons = [f"ragged input '{entry['name']}'" for entry in config["input"] if entry.get("allow_ragged_batch")]
    reasons += [field for field in ("batch_input", "batch_output") if config.get(field)]
    if config.get("sequence_batching", {}).get("state"):
        reasons.append("implicit sequence state")
    if config.get("model_transaction_policy", {}).get("decoupled"):
        reasons.append("the decoupled transaction policy")
    for reason in reasons:
        raise ModelError(f"unable to load model '{config['name']}', {reason} is not supported by this backend")


def check_tensor(config: Config, entry: Config, known: Mapping[str, Any], what: str) -> None:
    name, model = entry["name"], config["name"]
    if name not in known:
        allowed = ", ".join(sorted(known))
        raise ModelError(f"unexpected inference {what} '{name}', allowed {what}s are: {allowed}")
    provided = graph_type(known[name])
    if provided != entry["data_type"]:
        raise ModelError(
            f"unable to load model '{model}', configuration expects datatype {entry['data_type']} for {what} "
            f"'{name}', model provides {provided}"
        )
    dims = entry["reshape"].get("shape", []) if "reshape" in entry else entry["dims"]
    check_dims(config, name, [int(dim) for dim in dims], graph_dims(known[name]), exact=what == "output")


def check_dims(config: Config, name: str, dims: list[int], graph: list[int], *, exact: bool) -> None:
    """An output's dims are the graph's; an input's may fix what the graph leaves open."""
    model, batched = config["name"], config["max_batch_size"] > 0
    if not graph and not batched:
        if any(dim != 1 for dim in dims):
            raise ModelError(
                f"unable to load model '{model}', scalar tensor '{name}', should only provide 1 in the model "
                f"configuration when the model doesn't support batching. Model configuration provided: {dims}."
            )
        return
    if batched and graph[:1] != [-1]:
        raise ModelError(
            f"model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
            f"dimension and the first dimension must be -1; but shape expected by the model is {graph}"
        )
    full = [-1, *dims] if batched else dims
    if len(full) != len(graph) or any(g != f for g, f in zip(graph, full, strict=True) if exact or g != -1):
        meaning = " (the batch dimension, as max_batch_size > 0, and then the dims)" if batched else ""
        raise ModelError(
            f"model '{model}', tensor '{name}': the model expects {len(graph)} dimensions (shape {graph}) but the model "
            f"configuration specifies {len(full)} dimensions (shape {full}){meaning}"
        )
