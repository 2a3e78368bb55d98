# Other load generators for the same server and request: grpcio as it is fastest, and NVIDIA's perf_analyzer.
from __future__ import annotations

import csv
import multiprocessing
import shutil
import subprocess
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import grpc.experimental
import numpy as np

from clients.load.measure import INFER

PERF_ANALYZER = "perf_analyzer"


def grpcio(address: str, body: bytes, in_flight: int, seconds: float) -> tuple[float, float]:
    """(answers a second, p50 in ms) of so many threads, each with one blocking call at a time: with the option below, the
    fastest of grpcio's ways but asyncio. In a process of its own, as ours is."""
    mine, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_send, args=(address, body, in_flight, seconds, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        rate, p50 = mine.recv()
    finally:
        process.join(30)
    return float(rate), float(p50)


def _send(address: str, body: bytes, in_flight: int, seconds: float, pipe: Connection) -> None:
    options = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
    latencies: list[list[int]] = [[] for _ in range(in_flight)]
    with grpc.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(INFER)
        call(body, timeout=30)
        end = time.monotonic_ns() + int(seconds * 1e9)

        def work(mine: list[int]) -> None:
            while (sent := time.monotonic_ns()) < end:
                call(body, timeout=30)
                mine.append(time.monotonic_ns() - sent)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in latencies]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = time.monotonic() - begun
    merged = np.concatenate([np.array(mine, np.int64) for mine in latencies])
    pipe.send((len(merged) / taken, float(np.median(merged)) / 1e6))


def perf_analyzer(address: str, model: str, in_flight: int, seconds: float) -> tuple[float, float] | None:
    """The same two figures; None where it is not on the path, or does not run on this system."""
    binary = shutil.which(PERF_ANALYZER)
    if binary is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "table.csv"
        command = [binary, "-m", model, "-u", address, "-i", "grpc", "--concurrency-range", str(in_flight)]
        command += ["--measurement-interval", str(int(1000 * seconds)), "-f", str(table), "--max-threads", "1"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        if done.returncode or not table.exists():
            return None
        row = next(csv.DictReader(table.open()))
    return float(row["Inferences/Second"]), float(row["p50 latency"]) / 1000
