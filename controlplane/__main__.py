# `tritonctl` and `python -m controlplane`.
from __future__ import annotations

import sys

from controlplane.cli.app import main as run


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
