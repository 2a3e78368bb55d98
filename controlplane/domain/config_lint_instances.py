# Lint, fourth room: instances, hardware and how they are run.
from __future__ import annotations

from collections.abc import Callable, Iterator

from controlplane.domain.canonical import JsonObject
from controlplane.domain.config_findings import Finding, Subject, refused, regret
from controlplane.domain.config_tree import message, messages, number, numbers, parameter, text

_SWITCH = {"0", "1", "true", "false"}
_PARAMETERS: dict[str, tuple[Callable[[str], bool], str]] = {
    "intra_op_thread_count": (lambda value: value.isdecimal(), "a whole number, 0 for all cores"),
    "inter_op_thread_count": (lambda value: value.isdecimal(), "a whole number, 0 for all cores"),
    "execution_mode": (lambda value: value in {"0", "1"}, "0 (sequential) or 1 (parallel)"),
    "enable_mem_arena": (lambda value: value.lower() in _SWITCH, "0 or 1"),
    "enable_mem_pattern": (lambda value: value.lower() in _SWITCH, "0 or 1"),
}


def findings(subject: Subject) -> Iterator[Finding]:
    if subject.is_ensemble:
        return
    if not subject.groups:
        yield regret(
            "instances.unsaid",
            "instance_group",
            "without instance_group Triton decides: on most backends 2 instances on the CPU, or one for each GPU",
            "set instance_group[+] with name, kind and count",
        )
    if not subject.backend:
        yield regret("backend.unsaid", "backend", "without a backend Triton guesses it from file names", "set backend")
    names = [text(group.get("name")) for group in subject.groups]
    for index, group in enumerate(subject.groups):
        yield from _group(subject, f"instance_group[{index}]", group)
        name = names[index]
        if name and names.index(name) < index:
            yield regret(
                "instances.same_name",
                f"instance_group[{index}].name",
                f"two instance groups are named {name!r}: metrics cannot tell them apart",
                "give each its own name",
            )
    yield from _accelerators(subject)
    if subject.backend == "onnxruntime":
        yield from _parameters(subject)
        yield from _threads(subject)


def _group(subject: Subject, path: str, group: JsonObject) -> Iterator[Finding]:
    kind, gpus = text(group.get("kind")), numbers(group.get("gpus"))
    if number(group.get("count")) < 1:
        yield regret(
            "instances.count",
            f"{path}.count",
            f"count is {number(group.get('count'))}: Triton decides",
            f"set {path}.count",
        )
    if gpus and kind == "KIND_CPU":
        yield refused(
            "instances.gpus", f"{path}.gpus", f"a group on the CPU names GPUs {gpus}", "unset gpus or set KIND_GPU"
        )
    if subject.embedded and kind == "KIND_GPU":
        yield refused(
            "embedded.unsupported", f"{path}.kind", "the embedded server runs on the CPU", "set kind to KIND_CPU"
        )
        return  # whatever the host has
    if subject.host is None:
        return
    there = subject.host.gpus
    if there == 0 and (kind == "KIND_GPU" or (gpus and kind == "")):
        yield refused(
            "instances.no_gpu", f"{path}.kind", "the group wants a GPU, the host has none", "set kind to KIND_CPU"
        )
    elif kind in {"KIND_GPU", ""} and (missing := [gpu for gpu in gpus if not 0 <= gpu < there]):
        yield refused(
            "instances.gpus", f"{path}.gpus", f"there is no GPU {missing[0]}, the host has {there}", "name others"
        )


def _accelerators(subject: Subject) -> Iterator[Finding]:
    optimization = subject.part("optimization")
    accelerators = message(optimization.get("execution_accelerators"))
    on_gpu = any(text(group.get("kind")) in {"KIND_GPU", ""} for group in subject.groups)
    on_gpu = on_gpu and (subject.host is None or subject.host.gpus > 0)
    asked = [
        (
            "optimization.execution_accelerators.gpu_execution_accelerator",
            accelerators.get("gpu_execution_accelerator"),
        ),
        ("optimization.cuda.graphs", message(optimization.get("cuda")).get("graphs")),
    ]
    for path, value in asked:
        if value and not on_gpu:
            yield regret("accelerator.no_gpu", path, f"{path} does nothing: no instance runs on a GPU", f"unset {path}")
    names = [text(item.get("name")) for item in messages(accelerators.get("cpu_execution_accelerator"))]
    path = "optimization.execution_accelerators.cpu_execution_accelerator"
    for name in names:
        if subject.backend == "onnxruntime" and (subject.embedded or name != "openvino"):
            yield refused(
                "accelerator.unknown", path, f"there is no accelerator {name!r} for the CPU here", f"unset {path}"
            )


def _parameters(subject: Subject) -> Iterator[Finding]:
    for key, (fits, wanted) in _PARAMETERS.items():
        value = parameter(subject.config, key)
        if value is not None and not fits(value):
            path = f'parameters["{key}"].string_value'
            yield refused("parameter.value", path, f"{key} is {value[:60]!r}", f"set it to {wanted}")


def _threads(subject: Subject) -> Iterator[Finding]:
    instances = sum(max(number(g.get("count")), 1) for g in subject.groups if text(g.get("kind")) != "KIND_GPU")
    said = parameter(subject.config, "intra_op_thread_count") or "0"
    if subject.host is None or instances == 0 or not said.isdecimal():
        return
    cores, threads = subject.host.cpu_cores, int(said)
    path = 'parameters["intra_op_thread_count"].string_value'
    fair = f"set {path} to {max(1, cores // instances)}"
    if threads * instances > cores:
        yield regret(
            "threads.too_many", path, f"{instances} instances of {threads} threads compete for {cores} cores", fair
        )
    elif threads == 0 and instances > 1:
        yield regret(
            "threads.unsaid", path, f"each of {instances} instances starts a thread for each of {cores} cores", fair
        )
