# Lint, second room: inputs, outputs and the batch, against each other and against the graphs.
from __future__ import annotations

from collections.abc import Iterator

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Batching, Signature, TensorSpec
from controlplane.domain.config_findings import Finding, Subject, refused, regret
from controlplane.domain.config_paths import Field, Key, path_text
from controlplane.domain.config_tree import message, messages, number, numbers, text


def findings(subject: Subject) -> Iterator[Finding]:
    if subject.rows < 0:
        yield refused("batch.negative", "max_batch_size", f"max_batch_size is {subject.rows}", "use 0 or more")
        return  # whether the dims are right depends on it
    for side in ("input", "output"):
        tensors = messages(subject.config.get(side))
        if not tensors:
            yield from _missing(subject, side)
        names = [text(tensor.get("name")) for tensor in tensors]
        for name in sorted({name for name in names if names.count(name) > 1 or not name}):
            yield refused("tensor.name", side, f"{side} {name!r} is named {names.count(name)} times", "name each once")
        for tensor in tensors:
            yield from _tensor(subject, side, tensor)
    for version, signature in sorted(subject.signatures.items()):
        yield from _batching(subject, version, signature)
        for side, specs in (("input", signature.inputs), ("output", signature.outputs)):
            yield from _against(subject, version, side, specs)
    yield from _warmup(subject)


def _missing(subject: Subject, side: str) -> Iterator[Finding]:
    """Nothing is said about an ensemble's. A server that completes configs fills in what is missing; others do not."""
    hint = "run `tritonctl config generate` for a complete config"
    if side == "input" and subject.signatures:
        yield refused("input.missing", side, "the config lists no input, and the model takes some", hint)
    elif not subject.is_ensemble:
        why = (
            "only a server that completes configs loads it"
            if side == "input"
            else "a server may load it and answer nothing"
        )
        yield regret(f"{side}.missing", side, f"the config lists no {side}: {why}", hint)


def _tensor(subject: Subject, side: str, tensor: JsonObject) -> Iterator[Finding]:
    name, dims = text(tensor.get("name")), numbers(tensor.get("dims"))
    path = path_text((Field(side), Key(name)))
    if text(tensor.get("data_type")) in {"", "TYPE_INVALID"}:
        yield refused("tensor.datatype", f"{path}.data_type", f"{side} {name!r} has no data_type", "set data_type")
    if not _valid(dims):
        yield refused(
            "tensor.dims",
            f"{path}.dims",
            f"{side} {name!r} has dims {dims}: Triton wants at least one, each 1 or more, or -1 where it varies",
            "for a tensor without inner dims write dims [1], with an empty reshape when the model batches",
        )
    if text(tensor.get("format")) in {"FORMAT_NHWC", "FORMAT_NCHW"} and len(dims) != 3:
        yield refused(
            "tensor.format", f"{path}.format", f"{text(tensor['format'])} needs 3 dims, not {len(dims)}", "unset format"
        )
    if "reshape" in tensor:
        yield from _reshape(subject, path, dims, numbers(message(tensor["reshape"]).get("shape")))
    if tensor.get("optional") is True and subject.batched and subject.backend == "onnxruntime":
        yield refused(
            "tensor.optional", f"{path}.optional", f"{name!r} is optional, and the model batches", "unset optional"
        )
    if tensor.get("allow_ragged_batch") is True and subject.embedded:
        yield refused(
            "embedded.ragged", f"{path}.allow_ragged_batch", "the embedded server has no ragged batches", "unset it"
        )


def _valid(dims: list[int]) -> bool:
    return bool(dims) and all(dim >= 1 or dim == -1 for dim in dims)


def _reshape(subject: Subject, path: str, dims: list[int], shape: list[int]) -> Iterator[Finding]:
    if not shape and not subject.batched:
        yield refused(
            "tensor.reshape",
            f"{path}.reshape",
            "an empty reshape needs a model that batches",
            "use dims [1] without reshape",
        )
    elif _volumes(dims) != _volumes(shape):
        yield refused(
            "tensor.reshape", f"{path}.reshape", f"dims {dims} and reshape {shape} differ in size", "make them equal"
        )


def _volumes(dims: list[int]) -> list[int]:
    """The products of the fixed dims between the varying ones, which a reshape must keep."""
    volumes = [1]
    for dim in dims:
        if dim == -1:
            volumes.append(1)
        else:
            volumes[-1] *= dim
    return volumes


def _batching(subject: Subject, version: int, signature: Signature) -> Iterator[Finding]:
    if not subject.batched:
        return
    rows = subject.rows
    match signature.batching:
        case Batching.FIXED:
            yield refused(
                "batch.fixed",
                "max_batch_size",
                f"max_batch_size is {rows}, but version {version} has an input or output without a variable first dimension",
                "set max_batch_size to 0 and list the dims of the graph whole",
            )
        case Batching.MIXES_ROWS:
            yield regret(
                "batch.mixes_rows",
                "max_batch_size",
                f"max_batch_size is {rows}, but rows of version {version} answer differently in company: "
                "what a client gets depends on who else asks",
                "set max_batch_size to 0 and list the dims of the graph whole",
            )
        case Batching.UNKNOWN:
            yield regret(
                "batch.unknown",
                "max_batch_size",
                f"max_batch_size is {rows}, but it could not be tried whether version {version} answers each row by itself",
                "register the version with --samples, or set max_batch_size to 0",
            )
        case Batching.BATCHABLE:
            pass


def _against(subject: Subject, version: int, side: str, specs: tuple[TensorSpec, ...]) -> Iterator[Finding]:
    known = {spec.name: spec for spec in specs}
    listed = messages(subject.config.get(side))
    names = {text(tensor.get("name")) for tensor in listed}
    controls = {text(c.get("name")) for c in messages(subject.part("sequence_batching").get("control_input"))}
    for name in sorted(set(known) - names - controls) if listed else []:
        if side == "input":
            yield refused(
                "input.unlisted", "input", f"version {version} needs input {name!r}, which is not listed", "list it"
            )
        else:
            yield regret(
                "output.unlisted", "output", f"output {name!r} of version {version} cannot be asked for", "list it"
            )
    for tensor in listed:
        name = text(tensor.get("name"))
        path = path_text((Field(side), Key(name)))
        spec = known.get(name)
        if spec is None:
            if tensor.get("optional") is not True:  # an initializer that may be overridden is in no signature
                there = ", ".join(sorted(known))
                yield refused(f"{side}.unknown", path, f"version {version} has no {side} {name!r}", f"it has {there}")
            continue
        if text(tensor.get("data_type")) != spec.datatype:
            yield refused(
                "tensor.datatype",
                f"{path}.data_type",
                f"{side} {name!r} is {text(tensor.get('data_type'))}, version {version} has {spec.datatype}",
                f"set it to {spec.datatype}",
            )
        yield from _dims(subject, version, side, tensor, spec)


def _dims(subject: Subject, version: int, side: str, tensor: JsonObject, spec: TensorSpec) -> Iterator[Finding]:
    """An output's dims are the graph's; an input's may fix what the graph leaves open."""
    graph = [dim if isinstance(dim, int) else -1 for dim in spec.dims]
    dims = numbers(message(tensor["reshape"]).get("shape") if "reshape" in tensor else tensor.get("dims"))
    if (subject.batched and graph[:1] != [-1]) or not _valid(numbers(tensor.get("dims"))):
        return  # said already
    given = [-1, *dims] if subject.batched else dims
    if not graph and set(given) <= {1}:
        return
    fits = len(given) == len(graph) and all(
        a == b or (b == -1 and side == "input") for a, b in zip(given, graph, strict=True)
    )
    if not fits:
        wanted = graph[1:] if subject.batched else graph
        yield refused(
            "tensor.dims",
            path_text((Field(side), Key(spec.name), Field("dims"))),
            f"{side} {spec.name!r} has dims {dims}, version {version} has {wanted}"
            + (" after the batch" if subject.batched else ""),
            f"set dims to {wanted or [1]}" + ("" if wanted or not subject.batched else " with an empty reshape"),
        )


def _warmup(subject: Subject) -> Iterator[Finding]:
    expected = {text(tensor.get("name")): tensor for tensor in messages(subject.config.get("input"))}
    for i, warmup in enumerate(messages(subject.config.get("model_warmup"))):
        path, inputs = f"model_warmup[{i}]", message(warmup.get("inputs"))
        required = {name for name, tensor in expected.items() if tensor.get("optional") is not True}
        if not required <= set(inputs) <= set(expected):
            yield refused(
                "warmup.inputs",
                f"{path}.inputs",
                f"the warm-up sends {', '.join(sorted(inputs)) or 'nothing'}, the model takes {', '.join(sorted(expected))}",
                "give each input once",
            )
        if number(warmup.get("batch_size")) > max(subject.rows, 1):
            rows = number(warmup["batch_size"])
            yield refused(
                "warmup.batch_size",
                f"{path}.batch_size",
                f"it sends {rows} rows, at most {subject.rows} are taken",
                "send fewer",
            )
        for name, sample in inputs.items():
            wanted, given = message(expected.get(name)), message(sample)
            dims, places = numbers(given.get("dims")), numbers(wanted.get("dims"))
            fits = len(dims) == len(places) and all(b in {a, -1} for a, b in zip(dims, places, strict=True))
            if name in expected and (-1 in dims or not fits or given.get("data_type") != wanted.get("data_type")):
                yield refused(
                    "warmup.sample",
                    f"{path}.{path_text((Field('inputs'), Key(name)))}",
                    f"the warm-up sends {given.get('data_type')} {dims}, the model takes {wanted.get('data_type')} {places}",
                    "give the datatype and fixed dims of the input",
                )
