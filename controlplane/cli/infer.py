# One request to a live model, for a look.
from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clients.control.errors import ApiError
from clients.control.types import Server
from controlplane.cli import options
from controlplane.cli.output import emit, facts, table
from controlplane.cli.session import Session, Verb, pass_session, say
from controlplane.cli.uploading import require_npz

if TYPE_CHECKING:
    from clients.inference import Answer, InferenceClient, Tensor, Tls

_SHOWN = 8
_REQUEST_ID = re.compile(r"^\[request id: [^\]]*\] ")


@click.command(cls=Verb)
@click.argument("model")
@options.environment
@click.option("--input", "source", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--version", type=click.IntRange(min=1), help="Default: the highest that is ready.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the outputs to this .npz.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds.")
@pass_session
def infer(
    session: Session,
    /,
    model: str,
    *,
    env: str,
    source: Path,
    version: int | None,
    save: Path | None,
    timeout: float,
) -> None:
    """Send the arrays of an .npz file, named as the model's inputs, to the server that serves MODEL."""
    import numpy as np

    inputs = _load(source)
    servers = session.client.environments.servers(env).items
    if not servers:
        raise ApiError(
            f"{env!r} has no server", code="not_found", exit_code=4, hint=f"tritonctl server add NAME --env {env} …"
        )
    answer = ask(servers[0], model, inputs, version, timeout)
    if save is not None:
        np.savez(save, allow_pickle=False, **{name: _storable(array) for name, array in answer.outputs.items()})
        say(f"wrote {save}")
    outputs = {name: {"shape": list(a.shape), "data": _plain(a)} for name, a in answer.outputs.items()}
    emit(session, {"model": model, "version": answer.version, "outputs": outputs}, lambda: _page(answer))


def ask(server: Server, model: str, inputs: Mapping[str, Tensor], version: int | None, timeout: float) -> Answer:
    """One answer of this server. Raises ApiError: `not_found` for a model or version that it does not serve, and
    `input.invalid`, with what the model takes, for arrays that do not fit."""
    from clients.inference import InferenceClient, InferenceError

    with InferenceClient(server.address, tls=_tls(server)) as client:
        try:
            return client.infer(model, inputs, version=version, deadline_seconds=timeout)
        except InferenceError as error:
            words = _REQUEST_ID.sub("", error.message)
            if error.code == "NOT_FOUND":
                wish = f"--version {version or 1} --config generated --reason …"
                raise ApiError(
                    f"{words}: it is not deployed on {server.name}",
                    code="not_found",
                    exit_code=4,
                    hint=f"deploy it: tritonctl change propose {model} --env {server.environment} {wish}",
                ) from None
            if error.code == "INVALID_ARGUMENT":
                raise ApiError(
                    f"{words}; {_expected(client, model, version, timeout)}",
                    code="input.invalid",
                    exit_code=2,
                    hint=f"tritonctl model show {model}",
                ) from None
            raise ApiError(
                f"{server.name} at {server.address} answered {error.code}: {words}",
                code="server.inference_failed",
                exit_code=7,
                hint=f"tritonctl deployment show {model} --env {server.environment}",
            ) from None


def _expected(client: InferenceClient, model: str, version: int | None, timeout: float) -> str:
    """The inputs of what is served, in words."""
    from clients.inference import InferenceError

    try:
        inputs = client.inputs(model, version=version, deadline_seconds=timeout)
    except InferenceError as error:
        return f"its inputs could not be asked for: {error.code}"
    return "its inputs are " + ", ".join(f"{i.name} {i.datatype} {_dims(i.shape)}" for i in inputs)


def _dims(shape: Sequence[int]) -> str:
    return f"[{', '.join('?' if dim < 0 else str(dim) for dim in shape)}]"


def _load(source: Path) -> dict[str, Tensor]:
    """Never unpickled; text and fixed-width bytes become strings."""
    import numpy as np

    require_npz(source, "--input")
    arrays = {}
    try:
        with np.load(source, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = np.asarray(file[name])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        objects = "it holds an array of Python objects; convert it before saving: array.astype(str)"
        words = objects if isinstance(error, ValueError) else str(error)
        raise click.BadParameter(f"{source} cannot be read: {words}", param_hint="--input") from None
    for name, array in arrays.items():
        if array.dtype.kind in "SU":
            text = array.astype("S") if array.dtype.kind == "S" else np.char.encode(array, "utf-8")
            arrays[name] = text.astype(object)
    return arrays


def _storable(array: Tensor) -> Tensor:
    return array.astype("S") if array.dtype == object else array


def _tls(server: Server) -> Tls | None:
    from clients.inference import Tls

    if server.tls_ca is None and server.tls_certificate is None:
        return None
    files = (server.tls_ca, server.tls_certificate, server.tls_key)
    return Tls(*(Path(file).read_bytes() if file else None for file in files))


def _page(answer: Answer) -> None:
    facts([("model", answer.model), ("version", answer.version)])
    rows = []
    for name, array in answer.outputs.items():
        values = [_text(value) for value in array.reshape(-1)[:_SHOWN].tolist()]
        more = " …" if array.size > _SHOWN else ""
        rows.append((name, array.dtype, list(array.shape), " ".join(values) + more))
    table(("OUTPUT", "TYPE", "SHAPE", "VALUES"), rows)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(array: Tensor) -> object:
    if array.dtype == object:
        return [_text(value) for value in array.reshape(-1).tolist()]
    return array.tolist()
