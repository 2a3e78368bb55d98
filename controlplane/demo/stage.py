# Where the demo plays: `tritonctl up` in a home of its own, commands run in it, and nothing of it left behind.
from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clients.control import contexts
from clients.control.client import ControlClient
from clients.control.errors import ApiError
from controlplane.demo.narrator import Narrator
from controlplane.errors import DemoFailed
from controlplane.triton.runtime.paths import TETHER

ENVIRONMENT = "local"

_UP_SECONDS = 180.0
_STOP_SECONDS = 90.0
_COMMAND_SECONDS = 300.0
_TAIL_LINES = 15


class Stage:
    """Made and opened in the main thread: what it starts dies with that. `runtime` is the directory of the runtime
    environment, installed already, and `tritonserver` the binary used instead, if any.

    `desk` is the directory that the commands are run in.
    """

    def __init__(self, narrator: Narrator, runtime: Path, tritonserver: Path | None, *, keep: bool) -> None:
        self.narrator = narrator
        self.home = Path(tempfile.mkdtemp(prefix="tritonctl-demo-"))
        self.desk = self.home / "desk"
        self.desk.mkdir()
        (self.home / "runtime").symlink_to(runtime.absolute())
        self._environment = _environment(self.home, tritonserver)
        self._keep = keep
        self._up: subprocess.Popen[bytes] | None = None
        self._client: ControlClient | None = None

    @property
    def client(self) -> ControlClient:
        """The author's, for looking behind what the commands print. Raises DemoFailed before `open`."""
        if self._client is None:
            raise DemoFailed("the demo's installation is not up yet")
        return self._client

    @property
    def pid(self) -> int:
        assert self._up is not None
        return self._up.pid

    @property
    def triton(self) -> str:
        """Where Triton's gRPC listens."""
        return self.client.environments.servers(ENVIRONMENT).items[0].address

    @property
    def repository(self) -> Path:
        return Path(self.client.environments.servers(ENVIRONMENT).items[0].repository)

    def open(self) -> None:
        """Start everything; back when it answers. Raises DemoFailed."""
        log = self.home / "log" / "up.log"
        log.parent.mkdir()
        parent = f"{os.getpid()}:{signal.SIGTERM:d}"  # it stops in order, even when we are killed
        tether = [] if self._keep else [sys.executable, "-I", "-S", str(TETHER), parent]
        with log.open("wb") as output:
            self._up = subprocess.Popen(
                [*tether, *_tritonctl(), "up"],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the demo, which stops it in order
            )
        end = time.monotonic() + _UP_SECONDS
        while not self._answers():
            if self._up.poll() is not None:
                raise DemoFailed(f"tritonctl up ended with status {self._up.returncode}\n{_tail(log)}")
            if time.monotonic() > end:
                raise DemoFailed(f"tritonctl up did not answer within {_UP_SECONDS:g} s\n{_tail(log)}")
            time.sleep(0.1)

    def run(
        self, line: str, *, exits: int = 0, says: tuple[str, ...] = (), since: str = "", until: str | None = None
    ) -> None:
        """Run a command line in the desk and show it, and of what it prints the part from `since` to `until`. On a
        terminal stderr is the command's own, for its progress.

        Raises DemoFailed when its exit status is another, or one of `says` is not in what it printed.
        """
        self.narrator.command(line)
        words = shlex.split(line)
        done = subprocess.run(
            [*_tritonctl(), *words[1:]] if words[0] == "tritonctl" else words,
            cwd=self.desk,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if sys.stderr.isatty() else subprocess.STDOUT,
            encoding="utf-8",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        self.narrator.output(done.stdout, since, until)
        if done.returncode != exits:
            said = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
            raise DemoFailed(
                f"not as told: `{line}` exits with {done.returncode}, not with {exits}\n{said}\n{self.logs()}"
            )
        for words_wanted in says:
            if words_wanted not in done.stdout:
                raise DemoFailed(f"not as told: `{line}` does not say {words_wanted!r}")

    def logs(self) -> str:
        """The ends of all logs, for a failure."""
        found = [
            *sorted((self.home / "log").glob("*.log")),
            *sorted(self.home.glob("servers/*/log/*.log")),
            *sorted(self.home.glob("bench/log/*.log")),
        ]
        return "\n".join(f"--- {path.relative_to(self.home)}\n{_tail(path)}" for path in found)

    def close(self) -> None:
        """Stop everything and remove the home. Done when nothing of it is left."""
        if self._client is not None:
            self._client.close()
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()
        shutil.rmtree(self.home)

    def _answers(self) -> bool:
        try:
            if self._client is None:
                _, found = contexts.find(self.home / "context.toml", "author")
                self._client = ControlClient(found.api, found.token)
            return bool(self._client.environments.servers(ENVIRONMENT).items)
        except ApiError:
            return False


def _tritonctl() -> list[str]:
    return [sys.executable, "-P", "-m", "controlplane"]


def _environment(home: Path, tritonserver: Path | None) -> dict[str, str]:
    """The caller's, but for every setting of ours. A free port: the usual one may be another installation's."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("TRITONCTL_")}
    found |= {"TRITONCTL_HOME": str(home), "TRITONCTL_API__PORT": "0", "PYTHONUTF8": "1"}
    if tritonserver is not None:
        found["TRITONCTL_TRITONSERVER"] = str(tritonserver.absolute())
    if sys.dont_write_bytecode:
        # Two dozen commands that compile all modules anew would take half of the demo's time.
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        found["PYTHONPYCACHEPREFIX"] = str(home / "bytecode")
    return found


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
