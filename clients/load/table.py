# A run as people read it.
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from clients.load.measure import Measurement
from clients.load.options import Options
from clients.load.outcomes import ANSWERED, SENT, succeeded
from clients.load.processes import Records
from clients.load.runs import Found, Point, Report, all_held
from clients.load.server import PARTS, Shares, added
from clients.load.statistics import Interval
from clients.load.subject import Subject

_UNKNOWN = "?"
_HOLD = {"": "", "yes": "hold", "no": "do not hold", "unknown": "may hold"}


def about(subject: Subject, options: Options) -> str:
    """What is going to be measured: a line for each model, and how."""
    lines = []
    for served, part in zip(subject.models, subject.traffic.parts, strict=True):
        sizes = sorted({len(message) for message in part.messages})
        size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        version = "" if served.answering is None else f" version {served.answering}"
        how = "" if served.version is not None or served.answering is None else " (the highest that is ready)"
        words = [f"{_count(len(part.messages), 'distinct request')} of {size} bytes, batch {subject.batch}"]
        if part.lengths is not None:
            fewest, most = part.lengths
            words.append(f"sequences of {fewest if fewest == most else f'{fewest} to {most}'}")
        if len(subject.models) > 1:
            words.append(f"weight {part.weight:g}")
        if part.expected:
            words.append("answers checked")
        lines.append(f"{served.name}{version}{how}: {', '.join(words)}")
    way = f"{_count(options.processes, 'process', 'processes')} with {_count(options.connections, 'connection')} each"
    shared = {"none": "", "inputs": ", inputs in shared memory", "both": ", inputs and outputs in shared memory"}
    memory = shared[options.shared_memory]
    lines.append(f"{subject.server} at {subject.address}, by {subject.target.via}{memory}, {way}")
    return "\n".join(lines)


def block(point: Point) -> str:
    """All that is known of one load."""
    one = point.measured
    failed = sum(one.failed.values())
    counts = f"{one.offered:,} due, {one.sent:,} sent, {one.completed:,} answered, {failed:,} failed"
    late = f", {one.late:,} more than 1 ms late" if one.late else ""
    found = f" and {one.cut:,} calls" if one.cut else ""
    lines = [
        f"{point.name}: {one.verdict}",
        *(f"  {reason}" for reason in one.reasons),
        _fact(
            "rate", f"{_rate(one.rate)} over {one.seconds:.1f} s, after {point.limits.warm_up:g} s{found} of warm-up"
        ),
        _fact("calls", counts + late),
        *(_fact("", f"{count:,} {code}: {one.failures.get(code, '')}") for code, count in one.failed.items()),
        *_latencies(one),
        *_parts(one),
        *_answers(one),
        *_server(point),
        _fact("client", _client(point)),
        *(
            _fact("limit", f"p{percent:g} <= {_ms(bound)} ms {_held(held, one.verdict)}")
            for (percent, bound), held in point.held
        ),
    ]
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
        if report.options.limits:
            rows = [
                [*row, word]
                for row, word in zip(rows, ["limits", *(_HOLD[all_held(p)] for p in report.points)], strict=True)
            ]
        lines += [line.rstrip() for line in _aligned(rows, left=(0, 8, 9))]
    if report.found is not None:
        lines.append(_found(report.found, report.options))
    if report.failure is not None:
        lines.append(f"ended before its end: {report.failure}")
    if report.interrupted:
        lines.append("interrupted: what was measured until then stands above")
    return "\n".join(lines)


def _found(found: Found, options: Options) -> str:
    limits = " and ".join(options.limits)
    if not found.holds:
        return (
            f"{limits} was not shown to hold at {_number(found.fails)} calls a second, the lowest rate that was tried"
        )
    end = "the highest that was tried" if math.isinf(found.fails) else f"and was not shown to at {_number(found.fails)}"
    return f"{limits} holds at {_number(found.holds)} calls a second, {end}"


def _latencies(one: Measurement) -> list[str]:
    """A closed loop sends a call when it is due: then one line says both."""
    due, sent = one.latency.scheduled, one.latency.sent
    rows = [["ms", *(f"p{percent:g}" for percent in due)]]
    if one.offsets is None:
        rows += _pair("latency", due)
    else:
        rows += _pair("from due", due) + _pair("from send", sent)
    if one.streaming is not None and one.streaming.most > 1:
        rows += _pair("to first", one.streaming.first_scheduled) + _pair("between", one.streaming.between)
    lines = [f"  {line}" for line in _aligned(rows, left=(0,), width=9)]
    if one.streaming is not None:
        few, mean, most = one.streaming.fewest, one.streaming.mean, one.streaming.most
        lines.append(
            _fact("responses", f"{one.streaming.responses:,}: {few:,} to {most:,} a request, {mean:.3g} in the mean")
        )
    return lines


def _pair(name: str, found: Mapping[float, Interval]) -> list[list[str]]:
    return [[name, *(_ms(one.value) for one in found.values())], ["", *(_span(one) for one in found.values())]]


def _parts(one: Measurement) -> list[str]:
    if not one.parts:
        return []
    rows = [["model", "sent", "failed", "differing", "rate/s", "p50 ms", "p99", "p99 lies in"]]
    for label, part in one.parts.items():
        due = part.latency.scheduled
        rows.append(
            [
                label,
                *(f"{count:,}" for count in (part.sent, sum(part.failed.values()), part.differing)),
                _number(part.rate.value),
                *(_ms(due[percent].value) for percent in (50.0, 99.0)),
                _span(due[99.0]),
            ]
        )
    return [f"  {line}" for line in _aligned(rows, left=(0,))]


def _answers(one: Measurement) -> list[str]:
    if not one.checked:
        return []
    lines = [_fact("answers", f"{one.checked:,} checked, {one.differing:,} differ")]
    for found in one.differences:
        where = "" if found.index is None else f"[{', '.join(str(n) for n in found.index)}]"
        which = f"{found.part} " if found.part else ""
        lines.append(
            _fact("", f"{which}request {found.request}, {found.output}{where}: {found.got}, expected {found.expected}")
        )
    return lines


def _server(point: Point) -> list[str]:
    shares = added(point.shares)
    if shares is None:
        lines = [_fact("server", "its statistics are not available")]
    elif not shares.succeeded:
        lines = [_fact("server", "no request succeeded there")]
    else:
        lines = _spent(shares, succeeded(point.measured.records))
    for name, values in sorted(point.gauges.items()):
        lines.append(_fact("", f"{name}: {np.mean(values):,.4g} in the mean, {max(values):,.4g} at most"))
    return lines


def _spent(shares: Shares, good: Records) -> list[str]:
    parts = {part: (shares.mean_us(part) or 0.0) / 1000 for part in PARTS}
    means = ", ".join(f"{part} {mean:.3f}" for part, mean in parts.items())
    lines = [_fact("server", f"{means} ms, mean, warm-up included")]
    if len(good):
        seen = float((good[:, ANSWERED] - good[:, SENT]).mean()) / 1e6
        if seen >= parts["total"]:
            lines.append(_fact("", f"the way there and back {seen - parts['total']:.3f}: the rest of {seen:.3f}"))
    if shares.succeeded != len(good):
        why = "others send too, or what failed here did not there"
        lines.append(_fact("", f"of {shares.succeeded:,} requests, {len(good):,} of them answered here: {why}"))
    batches = ", ".join(f"{count:,} of {size}" for size, count in shares.batches.items())
    cached = f"; {shares.cache_hits:,} from its cache" if shares.cache_hits else ""
    lines.append(_fact("", f"{shares.inferences:,} inferences in {shares.executions:,} batches: {batches}{cached}"))
    return lines


def _client(point: Point) -> str:
    one = point.measured
    words = [one.transport, f"{one.client_cpu:.1f} s of processor time"]
    if one.reconnects:
        words.append(f"{_count(one.reconnects, 'connection')} made again")
    if point.calibration is not None:
        found = point.calibration
        words.append(
            f"without inference at most {found.ceiling:,.0f} calls a second ({found.concurrency} in flight), "
            f"at least {_ms(found.floor)} ms"
        )
    return ", ".join(words)


def _held(held: bool | None, verdict: str) -> str:
    if held is None:
        return (
            "cannot be told, for the client was late"
            if verdict == "client_limited"
            else "cannot be told: measure longer"
        )
    return "holds" if held else "does not hold" + (", for calls failed" if verdict == "errors" else "")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


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
