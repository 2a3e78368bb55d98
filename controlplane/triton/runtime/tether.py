# A program of its own: `python tether.py PARENT_PID[:SIGNAL] COMMAND...` becomes COMMAND, which dies with the parent.
from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, _, number = arguments[0].partition(":")
    command = arguments[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number) if number else signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above took effect
        return
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
