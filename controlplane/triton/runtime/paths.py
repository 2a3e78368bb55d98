# Where the runtime's own files lie, and the rule for paths that Triton passes unquoted to a shell.
from __future__ import annotations

import re
from pathlib import Path

from controlplane.errors import RuntimeUnavailable

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
BACKEND = Path(__file__).with_name("backend") / "model.py"
TETHER = Path(__file__).with_name("tether.py")

_SHELL_SAFE = re.compile(r"/[A-Za-z0-9_./+@=-]*")


def check_shell_safe(path: Path, what: str) -> None:
    """Raises RuntimeUnavailable: with a space in a path Triton's Python backend hangs for ever, and worse characters
    would be run as commands."""
    if _SHELL_SAFE.fullmatch(str(path)) is None:
        raise RuntimeUnavailable(
            f"the path of {what}, {str(path)!r}, has characters that Triton would hand to a shell",
            hint="use an absolute path of letters, digits and _ . / + @ = - only; TRITONCTL_HOME sets where everything lies",
        )
