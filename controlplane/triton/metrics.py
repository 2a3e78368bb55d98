# Reading a Triton server's Prometheus metrics.
from __future__ import annotations

import math
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead

from controlplane.errors import ServerUnreachable

PROBES = "onnxruntime_probes"

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \d+)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_MAX_BYTES = 64 * 1024 * 1024
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the environment is not for servers


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


def fetch(url: str, *, deadline_seconds: float) -> str:
    """The text at `url`, empty when what answers there does not speak HTTP. Raises ServerUnreachable."""
    try:
        with _DIRECT.open(url, timeout=deadline_seconds) as response:
            data: bytes = response.read(_MAX_BYTES)
    except (OSError, ValueError, IncompleteRead) as error:  # ValueError: an address without a scheme
        raise ServerUnreachable(
            f"the metrics at {url} cannot be read: {error}",
            hint="check the server's metrics address; Triton serves them unless it runs with --allow-metrics=false",
        ) from None
    except HTTPException:  # such as a server's gRPC port
        return ""
    return data.decode(errors="replace")


def samples(text: str, name: str) -> Iterator[Sample]:
    """The samples of one metric; lines that are not understood are passed over."""
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line) if line.startswith(name) else None
        if match is None or match[1] != name:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        labels = {key: re.sub(r"\\.", _unescape, found) for key, found in _LABEL.findall(match[2] or "")}
        yield Sample(name, labels, value)


def probed_instances(text: str, model: str, version: int) -> dict[str, int] | None:
    """Answered probe requests by instance; None when the metric knows nothing of this version. A counter's series can
    outlive its instance, so only its growth says that an instance is there."""
    found = {
        sample.labels.get("instance", ""): int(sample.value)
        for sample in samples(text, PROBES)
        if sample.labels.get("model") == model
        and sample.labels.get("version") == str(version)
        and math.isfinite(sample.value)
    }
    return found or None


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0], match[0])
