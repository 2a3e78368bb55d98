# The part of a generated config that depends on the hardware: instances, threads, accelerators.
from __future__ import annotations

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_intent import Accelerator, Aim, GenerateRequest, Kind, Reason
from controlplane.domain.config_tree import messages, number
from controlplane.errors import InvalidInput

MOST_INSTANCES = 8
"""Chosen unasked: each is a process or session with the weights in memory."""


def instances(request: GenerateRequest, reasons: list[Reason]) -> list[Json]:
    """One explicit group: without one Triton makes two on the CPU, or one for each GPU."""
    kind, gpus = _kind(request, reasons), request.host.gpus
    count = request.instances
    if count is not None and count < 1:
        raise InvalidInput(f"{count} instances cannot serve", hint="use 1 or more")
    if count is None:
        count, why = _count(request, kind)
        reasons.append(Reason("instance_group[0].count", f"{count} {why}"))
    group: JsonObject = {"name": kind.value, "kind": f"KIND_{kind.name}", "count": count}
    if kind is Kind.GPU:
        wanted = request.gpus or tuple(range(gpus))
        if missing := [gpu for gpu in wanted if not 0 <= gpu < gpus]:
            raise InvalidInput(
                f"there is no GPU {missing[0]}: the host has {gpus}", hint="name others, or none for all"
            )
        group["gpus"] = list(wanted)
        reasons.append(Reason("instance_group[0].gpus", f"{count} on each of GPU {', '.join(map(str, wanted))}"))
    elif request.gpus:
        raise InvalidInput("GPUs are named for instances on the CPU", hint="use --kind gpu, or name no GPUs")
    if request.rate_limit is not None:
        resources: list[Json] = [{"name": name, "count": n} for name, n in sorted(request.rate_limit.resources.items())]
        group["rate_limiter"] = {"resources": resources, "priority": request.rate_limit.priority}
        why = "an execution waits for its resources, if the server runs with --rate-limit=execution_count"
        reasons.append(Reason("instance_group[0].rate_limiter", why))
    return [group]


def _kind(request: GenerateRequest, reasons: list[Reason]) -> Kind:
    can = request.host.gpus > 0 and not request.embedded
    if request.kind is Kind.GPU and not can:
        why = "the embedded server runs on the CPU" if request.embedded else "the host has no GPU"
        raise InvalidInput(f"instances cannot run on a GPU: {why}", hint="use --kind cpu")
    if request.kind is not None:
        return request.kind
    if can:
        reasons.append(Reason("instance_group[0].kind", f"the host has {request.host.gpus} GPU"))
        return Kind.GPU
    why = "the embedded server runs on the CPU" if request.embedded else "the host has no GPU"
    reasons.append(Reason("instance_group[0].kind", why))
    return Kind.CPU


def _count(request: GenerateRequest, kind: Kind) -> tuple[int, str]:
    cores = request.host.cpu_cores
    if kind is Kind.GPU:
        if request.aim is Aim.LATENCY:
            return 1, "a GPU for latency: two would wait for each other"
        return 2, "a GPU for throughput: one copies while the other computes"
    if request.aim is Aim.LATENCY:
        return 1, f"for latency: one request may use all {cores} cores"
    count = request.threads and max(1, cores // request.threads)
    return min(count or cores, MOST_INSTANCES), f"for throughput on {cores} cores: requests run beside each other"


def execution(request: GenerateRequest, groups: Json, reasons: list[Reason]) -> JsonObject:
    """Parameters and accelerators of onnxruntime, under the names of NVIDIA's backend."""
    group = messages(groups)[0]
    on_gpu = group["kind"] == "KIND_GPU"
    parameters: dict[str, Json] = {}
    if request.threads is not None or not on_gpu:
        threads = _threads(request, number(group["count"]), reasons)
        parameters["intra_op_thread_count"] = {"string_value": str(threads)}
    if request.parallel_execution:
        parameters["execution_mode"] = {"string_value": "1"}
        reasons.append(Reason('parameters["execution_mode"]', "as asked: branches of the graph run beside each other"))
    accelerators = _accelerators(request, reasons, on_gpu=on_gpu)
    found: JsonObject = {"parameters": parameters}
    return found | ({"optimization": {"execution_accelerators": accelerators}} if accelerators else {})


def _threads(request: GenerateRequest, count: int, reasons: list[Reason]) -> int:
    cores = request.host.cpu_cores
    if request.threads is None:
        threads = max(1, cores // count)
        why = f"{cores} cores shared by {count} instances" if count > 1 else f"all {cores} cores"
        why += f"; unsaid, each instance would start {cores} threads" if count > 1 else ""
    elif request.threads < 1:
        raise InvalidInput(f"{request.threads} threads cannot run", hint="use 1 or more")
    else:
        threads = request.threads
        why = "as asked"
    reasons.append(Reason('parameters["intra_op_thread_count"]', f"{threads} threads an instance, {why}"))
    return threads


def _accelerators(request: GenerateRequest, reasons: list[Reason], *, on_gpu: bool) -> JsonObject:
    tensorrt = request.accelerator is Accelerator.TENSORRT
    if request.accelerator is not None and request.embedded:
        raise InvalidInput(
            f"the embedded server has no {request.accelerator.value}",
            hint="deploy to NVIDIA's container for accelerators",
        )
    if tensorrt and not on_gpu:
        raise InvalidInput(
            "TensorRT runs on a GPU, and the instances run on the CPU", hint="use --kind gpu, or leave it out"
        )
    if request.accelerator is Accelerator.OPENVINO and on_gpu:
        raise InvalidInput(
            "OpenVINO runs on the CPU, and the instances run on a GPU", hint="use --kind cpu, or leave it out"
        )
    for wish, wanted in (("half precision", request.half_precision), ("CUDA graphs", request.cuda_graphs)):
        if wanted and not tensorrt:
            raise InvalidInput(f"onnxruntime in Triton has {wish} only through TensorRT", hint="ask for tensorrt too")
    if tensorrt:
        parameters: dict[str, Json] = {"precision_mode": "FP16" if request.half_precision else "FP32"}
        if request.cuda_graphs:
            parameters["trt_cuda_graph_enable"] = "1"
            why = "as asked: kernels are launched together; captured anew whenever a shape changes"
            reasons.append(Reason("optimization.execution_accelerators", why))
        why = "TensorRT as asked: the first requests wait for engines to be built" + (
            "; half precision changes answers, so golden inferences need a tolerance" if request.half_precision else ""
        )
        reasons.append(Reason("optimization.execution_accelerators", why))
        return {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": parameters}]}
    if request.accelerator is Accelerator.OPENVINO:
        why = "OpenVINO as asked: the server's onnxruntime must have been built with it"
        reasons.append(Reason("optimization.execution_accelerators", why))
        return {"cpu_execution_accelerator": [{"name": "openvino"}]}
    return {}
