# A run as people read it.
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from clients.load.options import Options
from clients.load.outcomes import ANSWERED, SENT, succeeded
from clients.load.runs import Found, Point, Report
from clients.load.server import PARTS
from clients.load.statistics import Interval
from clients.load.subject import Subject

_UNKNOWN = "?"


def about(subject: Subject, options: Options) -> str:
    """What is going to be measured, in a line."""
    sizes = sorted({len(message) for message in subject.messages})
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    version = "" if subject.answering is None else f" version {subject.answering}"
    how = "" if subject.version is not None or subject.answering is None else " (the highest that is ready)"
    many = f"{len(subject.messages)} distinct requests" if len(subject.messages) > 1 else "1 request"
    way = f"{options.processes} process{'es' if options.processes > 1 else ''}"
    way += f" of {options.connections} connections" if options.connections > 1 else ""
    return (
        f"{subject.model}{version}{how} at {subject.address}, {subject.server}\n"
        f"{many} of {size} bytes, batch {subject.batch}; {way}"
    )


def block(point: Point) -> str:
    """All that is known of one load."""
    one = point.measured
    lines = [f"{point.name}: {one.verdict}", *(f"  {reason}" for reason in one.reasons)]
    failed = sum(one.failed.values())
    counts = f"{one.offered:,} due, {one.sent:,} sent, {one.completed:,} answered, {failed:,} failed"
    late = f", {one.late:,} more than 1 ms late" if one.late else ""
    lines += [
        _fact("rate", f"{_rate(one.rate)} over {one.seconds:.1f} s"),
        _fact("calls", counts + late),
        *(_fact("", f"{count:,} {code}: {one.failures.get(code, '')}") for code, count in one.failed.items()),
        *_latencies(point),
        *_server(point),
        _fact("client", _client(point)),
    ]
    lines += [_fact("limit", f"p{p:g} <= {_ms(bound)} ms: {_held(held)}") for (p, bound), held in point.held]
    return "\n".join(line.rstrip() for line in lines)


def summary(report: Report) -> str:
    """Loads side by side, where there are several, and what was found."""
    lines = []
    if len(report.points) > 1:
        rows = [["load", "rate/s", "p50 ms", "p90", "p95", "p99", "p99 lies in", "failed", "verdict"]]
        for point in report.points:
            one = point.measured
            due = one.latency.scheduled
            rows.append(
                [point.name, _number(one.rate.value)]
                + [_ms(due[percent].value) for percent in (50.0, 90.0, 95.0, 99.0)]
                + [_span(due[99.0]), f"{sum(one.failed.values()):,}", one.verdict]
            )
        lines += _aligned(rows, left=(0, 8))
    if report.found is not None:
        lines.append(_found(report.found, report.options))
    if report.interrupted:
        lines.append("interrupted: what was measured until then stands above")
    return "\n".join(lines)


def _found(found: Found, options: Options) -> str:
    limits = " and ".join(options.limits)
    if not found.holds:
        return f"{limits} does not hold at {found.fails:,.0f} calls a second, the lowest rate that was tried"
    end = "the highest that was tried" if math.isinf(found.fails) else f"not at {found.fails:,.0f}"
    return f"{limits} holds at {found.holds:,.0f} calls a second, {end}"


def _latencies(point: Point) -> list[str]:
    latency = point.measured.latency
    rows = [["ms", *(f"p{percent:g}" for percent in latency.scheduled)]]
    for name, found in (("from due", latency.scheduled), ("from send", latency.sent)):
        rows.append([name, *(_ms(one.value) for one in found.values())])
        rows.append(["", *(_span(one) for one in found.values())])
    return [f"  {line}" for line in _aligned(rows, left=(0,), width=9)]


def _server(point: Point) -> list[str]:
    shares = point.shares
    if shares is None or not shares.succeeded:
        return [_fact("server", "its statistics are not available" if shares is None else "no request succeeded there")]
    parts = {part: shares.mean_us(part) or 0.0 for part in PARTS}
    good = succeeded(point.measured.records)
    lines = [_fact("server", ", ".join(f"{part} {mean / 1000:.3f}" for part, mean in parts.items()) + " ms, mean")]
    if len(good):
        seen = float((good[:, ANSWERED] - good[:, SENT]).mean()) / 1e6
        lines.append(_fact("", f"network and client {seen - parts['total'] / 1000:.3f} ms: the rest of {seen:.3f}"))
    batches = ", ".join(f"{count:,} of {size}" for size, count in shares.batches.items())
    cached = f"; {shares.cache_hits:,} from its cache" if shares.cache_hits else ""
    lines.append(_fact("", f"{shares.inferences:,} inferences in {shares.executions:,} batches: {batches}{cached}"))
    for name, values in sorted(point.gauges.items()):
        lines.append(_fact("", f"{name}: {np.mean(values):,.4g} in the mean, {max(values):,.4g} at most"))
    return lines


def _client(point: Point) -> str:
    one = point.measured
    words = [one.transport, f"{one.client_cpu:.1f} s of processor time"]
    if one.reconnects:
        words.append(f"{one.reconnects} connections made again")
    if point.calibration is not None:
        found = point.calibration
        words.append(
            f"without inference at most {found.ceiling:,.0f} calls a second ({found.concurrency} in flight), "
            f"at least {_ms(found.floor)} ms"
        )
    return ", ".join(words)


def _held(held: bool | None) -> str:
    return {True: "holds", False: "does not hold", None: "cannot be told"}[held]


def _rate(one: Interval) -> str:
    known = f" ({_number(one.low)} to {_number(one.high)})" if math.isfinite(one.high) else " (not known how surely)"
    return f"{_number(one.value)} a second{known}"


def _number(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _span(one: Interval) -> str:
    return f"{_ms(one.low)}-{_ms(one.high)}"


def _ms(seconds: float) -> str:
    if not math.isfinite(seconds):
        return _UNKNOWN
    ms = seconds * 1000
    return f"{ms:.3f}" if ms < 10 else f"{ms:.2f}" if ms < 100 else f"{ms:,.0f}"


def _fact(name: str, words: str) -> str:
    return f"  {name:<9}  {words}"


def _aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int], width: int = 0) -> list[str]:
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    widths[0] = max(widths[0], width)
    return [
        "  ".join(
            cell.ljust(w) if n in left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
