# The files of a version on their way to the API.
from __future__ import annotations

import zipfile
from pathlib import Path

import click

from clients.control.types import File
from controlplane.cli.progress import bytes_bar
from controlplane.cli.session import Session

_SERVED_AS = "model.onnx"


def files_of(source: Path, *, may_be_empty: bool = False) -> dict[str, Path]:
    """What goes into the version's directory: a single file is served as model.onnx. Python's bytecode stays behind, and so
    do files whose name begins with a dot: they are for version control, and Triton takes them for a change."""
    if source.is_file():
        return {_SERVED_AS: source}
    found = {
        path.relative_to(source).as_posix(): path
        for path in sorted(source.rglob("*"))
        if not path.is_dir() and not any(map(_stays_behind, path.relative_to(source).parts))
    }
    if not found and not may_be_empty:
        raise click.BadParameter(f"{source} holds no file", param_hint="FILE")
    for path in found.values():
        if path.is_symlink() or not path.is_file():
            raise click.BadParameter(f"{path} is not a plain file", param_hint="FILE")
    return found


def _stays_behind(name: str) -> bool:
    return name == "__pycache__" or name.startswith(".")


def require_npz(path: Path, option: str) -> None:
    """Before anybody reads it: what is not even a zip file gets a plain answer."""
    if not zipfile.is_zipfile(path):
        raise click.BadParameter(f"{path} is not an .npz file", param_hint=option)


def upload_version(session: Session, files: dict[str, Path]) -> tuple[File, ...]:
    total = sum(path.stat().st_size for path in files.values())
    with bytes_bar("uploading", total) as done:
        return tuple(session.client.uploads.upload(path, name, progress=done) for name, path in files.items())
