# A complete config from a signature, the hardware and an intent, with the reason for each choice.
"""What is chosen here is where measuring starts, not where it ends: a sweep finds out what is right."""

from __future__ import annotations

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, TensorSpec
from controlplane.domain.config_intent import Aim, Generated, GenerateRequest, Reason
from controlplane.domain.config_lint import lint, refuse
from controlplane.domain.config_paths import Field, Key, path_text
from controlplane.errors import InvalidInput
from controlplane.triton.config_fields import message_of, tree_of
from controlplane.triton.generate_hardware import execution, instances

_ROWS = {Aim.LATENCY: 8, Aim.THROUGHPUT: 32}
_DELAY_US = {Aim.LATENCY: 0, Aim.THROUGHPUT: 100}


def generate(request: GenerateRequest) -> Generated:
    """Deterministic. Raises InvalidInput where the wish does not fit the graph or the hardware, with the reason."""
    reasons: list[Reason] = []
    rows = _rows(request, reasons)
    config: JsonObject = {
        "name": request.model,
        "backend": "onnxruntime",
        "max_batch_size": rows,
        "input": [_tensor(spec, "input", rows, reasons) for spec in request.signature.inputs],
        "output": [_tensor(spec, "output", rows, reasons) for spec in request.signature.outputs],
    }
    config |= _batching(request, rows, reasons)
    config["instance_group"] = instances(request, reasons)
    config |= execution(request, config["instance_group"], reasons)
    config |= _cache(request, reasons)
    config |= _warmup(request, rows, reasons)
    config = tree_of(message_of(config))
    signatures = {1: request.signature}
    refuse(lint(config, model=request.model, signatures=signatures, host=request.host, embedded=request.embedded))
    return Generated(config, tuple(reasons))


def _rows(request: GenerateRequest, reasons: list[Reason]) -> int:
    asked, batching = request.max_batch_size, request.signature.batching
    if asked is not None and asked < 0:
        raise InvalidInput(f"max_batch_size cannot be {asked}", hint="use 0 or more")
    if batching is Batching.FIXED and asked:
        raise InvalidInput(
            f"max_batch_size cannot be {asked}: an input or output has no variable first dimension",
            hint="export the model with a variable batch dimension, or use --max-batch-size 0",
        )
    said = {
        Batching.BATCHABLE: "each row was seen to be answered by itself",
        Batching.FIXED: "an input or output has no variable first dimension, so Triton cannot join requests",
        Batching.MIXES_ROWS: "rows were seen to answer differently in company, so joining requests changes answers",
        Batching.UNKNOWN: "it could not be tried whether each row is answered by itself; --samples may help",
    }[batching]
    chosen = (_ROWS[request.aim] if batching is Batching.BATCHABLE else 0) if asked is None else asked
    wish = "as asked" if asked is not None else f"for {request.aim.value}" if chosen else "no batch"
    reasons.append(Reason("max_batch_size", f"{chosen} {wish}: {said}"))
    return chosen


def _tensor(spec: TensorSpec, side: str, rows: int, reasons: list[Reason]) -> JsonObject:
    dims: list[Json] = [str(dim) if isinstance(dim, int) else "-1" for dim in (spec.dims[1:] if rows else spec.dims)]
    tensor: JsonObject = {"name": spec.name, "data_type": spec.datatype, "dims": dims or ["1"]}
    if not dims:
        why = "Triton has no tensors without dims"
        if rows:
            tensor["reshape"] = {}
            why += ": clients send [rows, 1], the graph gets [rows]"
        reasons.append(
            Reason(
                path_text((Field(side), Key(spec.name), Field("dims"))),
                f"{why}: a scalar travels as [1]" if not rows else why,
            )
        )
    return tensor


def _batching(request: GenerateRequest, rows: int, reasons: list[Reason]) -> JsonObject:
    """Dynamic batching where requests can be joined, or where queue and priorities ask for its queue."""
    delay = request.max_queue_delay_us
    if rows <= 1 and (delay or request.preferred_batch_sizes):
        raise InvalidInput(
            f"nothing is joined with max_batch_size {rows}, so a queue delay or preferred sizes have no sense",
            hint="leave them out, or ask for a larger --max-batch-size",
        )
    if rows <= 1 and not request.queue and not request.priority_levels:
        reasons.append(Reason("dynamic_batching", f"left out: nothing is joined with max_batch_size {rows}"))
        return {}
    batching: JsonObject = {"preserve_ordering": request.preserve_ordering}
    if rows > 1:
        chosen = _DELAY_US[request.aim] if delay is None else delay
        batching["max_queue_delay_microseconds"] = str(chosen)
        waits = f"a request waits up to {chosen} µs for company" if chosen else "no request waits for company"
        wish = f"for {request.aim.value}" if delay is None else "as asked"
        reasons.append(Reason("dynamic_batching.max_queue_delay_microseconds", f"{waits}, {wish}"))
        sizes: list[Json] = list(request.preferred_batch_sizes)
        batching["preferred_batch_size"] = sizes
        if not sizes:
            why = "left out: sizes that are no faster than others only delay"
            reasons.append(Reason("dynamic_batching.preferred_batch_size", why))
    return {"dynamic_batching": batching | _priorities(request, reasons) | _queue(request, reasons)}


def _priorities(request: GenerateRequest, reasons: list[Reason]) -> JsonObject:
    levels, default = request.priority_levels, request.default_priority_level
    if not levels:
        return {}
    chosen = levels if default is None else default
    if default is None:
        why = f"{chosen}, the last: only who asks for more comes first"
        reasons.append(Reason("dynamic_batching.default_priority_level", why))
    return {"priority_levels": str(levels), "default_priority_level": str(chosen)}


def _queue(request: GenerateRequest, reasons: list[Reason]) -> JsonObject:
    queue = request.queue
    if queue is None:
        why = "left out: the queue has no limits, and a flood makes every answer late"
        reasons.append(Reason("dynamic_batching.default_queue_policy", why))
        return {}
    if queue.timeout_us:
        fate = "kept behind the others" if queue.delay else "refused"
        why = f"a request that waited {queue.timeout_us} µs is {fate}"
        reasons.append(Reason("dynamic_batching.default_queue_policy.timeout_action", why))
    policy: JsonObject = {
        "timeout_action": "DELAY" if queue.delay else "REJECT",
        "default_timeout_microseconds": str(queue.timeout_us),
        "allow_timeout_override": queue.clients_decide,
        "max_queue_size": queue.max_size,
    }
    return {"default_queue_policy": policy}


def _cache(request: GenerateRequest, reasons: list[Reason]) -> JsonObject:
    if not request.response_cache:
        return {}
    why = "as asked: the same inputs get the stored answer, if the server has a cache (--cache-config)"
    reasons.append(Reason("response_cache.enable", why))
    return {"response_cache": {"enable": True}}


def _warmup(request: GenerateRequest, rows: int, reasons: list[Reason]) -> JsonObject:
    """Zeros in the shapes of a golden input. Its values cannot be used: Triton reads them from a file in the model's
    directory, which holds nothing but versions and config; and random numbers may be no valid indices."""
    if not request.warmup:
        return {}
    inputs: dict[str, Json] = {}
    for spec in request.signature.inputs:
        golden = (request.golden_shapes or {}).get(spec.name, ())
        dims = [
            golden[at] if not isinstance(dim, int) and at < len(golden) else dim for at, dim in enumerate(spec.dims)
        ]
        dims = dims[1:] if rows else dims
        if not all(isinstance(dim, int) for dim in dims):
            raise InvalidInput(
                f"warm-up needs a size for each dim of input {spec.name!r}, which the graph leaves open",
                hint="register the version with --samples, so that a golden input says them",
            )
        inputs[spec.name] = {
            "data_type": spec.datatype,
            "dims": [str(dim) for dim in dims] or ["1"],
            "zero_data": True,
        }
    why = "zeros in the shape of a golden input, so that the first request of each instance is as fast as the others"
    reasons.append(Reason("model_warmup", why))
    return {"model_warmup": [{"name": "first_request", "batch_size": min(rows, 1), "count": 1, "inputs": inputs}]}
