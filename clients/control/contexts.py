# Contexts: which API, as whom, and what of its audit log was seen; one TOML file, readable by its owner only.
from __future__ import annotations

import fcntl
import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clients.control.errors import ApiError


@dataclass(frozen=True, slots=True)
class Context:
    """`audit_key` is the pinned verification key of the API's audit log (C2SP vkey), empty until one was seen;
    `checkpoint` the last signed checkpoint seen (base64), empty likewise."""

    api: str
    token: str = field(default="", repr=False)
    audit_key: str = ""
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class ContextFile:
    """Every context by name, and which one is used when none is named."""

    contexts: dict[str, Context]
    current: str = ""


def home() -> Path:
    return Path(os.environ.get("TRITONCTL_HOME") or Path.home() / ".tritonctl")


def context_path() -> Path:
    return home() / "context.toml"


def read(path: Path) -> ContextFile:
    """An absent file has no contexts. Raises ApiError (`context.invalid`) for one that cannot be read."""
    try:
        tree = tomllib.loads(path.read_text())
        contexts = {name: Context(**fields) for name, fields in tree.get("contexts", {}).items()}
        return ContextFile(contexts, str(tree.get("current", "")))
    except FileNotFoundError:
        return ContextFile({})
    except (tomllib.TOMLDecodeError, TypeError, AttributeError, UnicodeDecodeError, OSError) as error:
        raise ApiError(
            f"the context file {path} cannot be read: {error}",
            code="context.invalid",
            exit_code=2,
            hint=f"mend it, or move it away and write it anew: mv {path} {path}.old",
        ) from None


def find(path: Path, name: str | None) -> tuple[str, Context]:
    """The context `name`, or the current one. Raises ApiError (`context.not_found`)."""
    file = read(path)
    wanted = name or file.current
    if wanted in file.contexts:
        return wanted, file.contexts[wanted]
    known = ", ".join(sorted(file.contexts))
    raise ApiError(
        f"there is no context {wanted!r}" if wanted else "no context is chosen",
        code="context.not_found",
        exit_code=4,
        hint=f"the contexts are {known}: tritonctl context use NAME"
        if known
        else "tritonctl up, in another terminal; or tritonctl context set NAME --api URL --token-file FILE --use",
    )


def put(path: Path, name: str, context: Context, *, use: bool = False) -> None:
    with _change(path) as file:
        file.contexts[name] = context
        _write(path, replace(file, current=name if use or not file.current else file.current))


def use(path: Path, name: str) -> None:
    find(path, name)
    with _change(path) as file:
        _write(path, replace(file, current=name))


def remove(path: Path, name: str) -> None:
    find(path, name)
    with _change(path) as file:
        del file.contexts[name]
        _write(path, replace(file, current="" if file.current == name else file.current))


def remember(path: Path, name: str, *, audit_key: str, before: str, checkpoint: str) -> None:
    """What was seen of the audit log goes to the file. Where another process has replaced what was seen `before`, or the
    context is gone, the file stays as it is."""
    with _change(path) as file:
        found = file.contexts.get(name)
        if found is not None and found.checkpoint == before:
            file.contexts[name] = replace(found, audit_key=audit_key, checkpoint=checkpoint)
            _write(path, file)


@contextmanager
def _change(path: Path) -> Iterator[ContextFile]:
    """The file's content, with every other process that would change it waiting."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield read(path)


def _write(path: Path, file: ContextFile) -> None:
    lines = ["# Written by tritonctl; it holds tokens.", f"current = {_text(file.current)}"]
    for name, context in sorted(file.contexts.items()):
        lines += ["", f"[contexts.{_text(name)}]"]
        lines += [f"{key} = {_text(value)}" for key, value in asdict(context).items() if value]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:  # noqa: PTH123  # the mode
        out.write("\n".join(lines) + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's, and DEL is the one character that only TOML escapes."""
    return json.dumps(value).replace("\x7f", "\\u007f")
