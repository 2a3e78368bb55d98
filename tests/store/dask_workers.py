# A Dask cluster of real processes on this machine, whose benches simulate what they measure.
from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from controlplane.bench.cluster import connect
from controlplane.bench.scratch import Blobs
from controlplane.domain.canonical import JsonObject
from controlplane.domain.fingerprints import Fingerprint, Host, Serving
from controlplane.domain.sweep_rounds import CandidateFailure, Measurement, RoundOrder, RoundResult, Verdict
from controlplane.errors import RuntimeUnavailable
from controlplane.storage.artifacts import ObjectArtifactStore
from tests import simulated_bench

ROOT = Path(__file__).parents[2]
PAUSE_SECONDS = 0.02


class SimulatedBench:
    """Each block takes as long as it says. What it does is written to `journal`, a line at once, with the time."""

    def __init__(self, journal: Path, memory: int) -> None:
        self._journal = journal
        self.fingerprint = Fingerprint(
            Host("simulated", 2, 2, 2000, None, memory, (), "6.1"), Serving("2.51.0"), local=True, packages=(),
            control_plane="", commit=None,
        )  # fmt: skip

    def measure(
        self, order: RoundOrder, store: Blobs, *, done: Callable[[Measurement], None], go_on: Callable[[], None]
    ) -> RoundResult:
        for model in order.models:
            for entry in model.manifest.files:
                data = b"".join(store.read(entry.sha256))
                if data.startswith(b"deadly"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if data.startswith(b"no runtime"):
                    raise RuntimeUnavailable("there is no Triton here", hint="install one")
        measured = []
        self.note("begins", order)
        try:
            for block in order.blocks:
                began = datetime.now(UTC)
                end = time.monotonic() + block.seconds
                while time.monotonic() < end:
                    go_on()
                    time.sleep(PAUSE_SECONDS)
                one = Measurement(
                    order.sweep, order.number, order.stage, block, Verdict.VALID, (), began, datetime.now(UTC),
                    seconds=block.seconds, figures={"throughput": float(block.seed)}, fingerprint=self.fingerprint.digest,
                )  # fmt: skip
                done(one)
                measured.append(one)
        finally:
            self.note("ends", order)
        failed = [CandidateFailure(order.models[-1].candidate, "it is the last")]
        return RoundResult(tuple(measured), tuple(failed), self.fingerprint)

    def note(self, what: str, order: RoundOrder | None = None) -> None:
        about: JsonObject = {"what": what, "pid": os.getpid(), "at": repr(time.time())}
        if order is not None:
            about |= {"sweep": order.sweep, "turns": sorted({block.turn for block in order.blocks})}
        with self._journal.open("a") as file:
            file.write(json.dumps(about) + "\n")


@contextmanager
def simulated(journal: Path, memory: int) -> Iterator[SimulatedBench]:
    bench = SimulatedBench(journal, memory)
    bench.note("opens")
    yield bench
    bench.note("closes")


class Sweeping(simulated_bench.SimulatedBench):
    """The figures that sweeps are tested by; the same wherever a block is measured."""

    fingerprint = simulated_bench.FINGERPRINT

    @contextmanager
    def here(self) -> Iterator[Sweeping]:
        yield self

    def measure(
        self, order: RoundOrder, store: Blobs, *, done: Callable[[Measurement], None], go_on: Callable[[], None]
    ) -> RoundResult:
        def slowly(measurement: Measurement) -> None:
            time.sleep(PAUSE_SECONDS)
            done(measurement)

        return super().measure(order, store, done=slowly, go_on=go_on)  # type: ignore[arg-type]  # it reads nothing


class Everything(ObjectArtifactStore):
    """For a bench that looks into no artifact."""

    def has(self, sha256: str) -> bool:
        return True


def main(scheduler: str, directory: Path, name: str, memory: int) -> None:
    """Without memory, a bench for sweeps."""
    from controlplane.bench.slot import BenchSlot, bench_worker

    def opener() -> AbstractContextManager[SimulatedBench | Sweeping]:
        return simulated(directory / f"{name}.journal", memory) if memory else Sweeping().here()

    async def run() -> None:
        store = (ObjectArtifactStore if memory else Everything).local(directory / name / "blobs")
        slot = BenchSlot(opener, store, directory / name / "spool")
        async with bench_worker(scheduler, slot, name=name, directory=str(directory / name)) as worker:
            await worker.finished()

    asyncio.run(run())


class Cluster:
    """A scheduler and its workers, killed at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        file = directory / "scheduler.json"
        self._start("scheduler", "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1",
                    "--no-dashboard", "--scheduler-file", str(file))  # fmt: skip
        waited(lambda: file.exists() and file.read_text().endswith("}"), "the scheduler")
        self.scheduler = str(json.loads(file.read_text())["address"])

    @property
    def address(self) -> str:
        return self.scheduler.replace("tcp://", "dask://")

    def have(self, *names: str, slot: bool = True, **memory: int) -> None:
        """These workers and no others, registered, their journals empty; those by keyword on hosts of so much memory."""
        for journal in self.directory.glob("*.journal"):
            journal.unlink()
        wanted = dict.fromkeys(names, 8 << 30) | memory
        for name in self._processes.keys() - {"scheduler", *wanted}:
            self.kill(name)
        for name, size in wanted.items():
            if name not in self._processes:
                self._add(name, size, slot=slot)
        with connect(self.scheduler) as client:
            waited(
                lambda: {one["name"] for one in client.scheduler_info()["workers"].values()} == set(wanted), f"{wanted}"
            )

    def _add(self, name: str, memory: int, *, slot: bool) -> None:
        if slot:
            ours = ("tests.store.dask_workers", self.scheduler, str(self.directory), name, str(memory))
            self._start(name, "-m", *ours)
        else:
            dasks = ("--name", name, "--resources", "bench=1", "--no-nanny", "--no-dashboard")
            self._start(name, "-m", "distributed.cli.dask_worker", self.scheduler, *dasks)

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        process = self._processes.pop(name)
        process.send_signal(how)
        process.wait(60)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def journal(self, name: str, what: str = "") -> list[JsonObject]:
        path = self.directory / f"{name}.journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [one for one in map(json.loads, lines) if what in {"", one["what"]}]

    def close(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def _start(self, name: str, *arguments: str, **settings: str) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
            )


def waited(ready: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
