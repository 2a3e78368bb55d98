# How reports say figures, intervals, parameters and times.
from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from clients.load.statistics import Interval
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_dimensions import SHORT
from controlplane.domain.sweeps import Trial

_TITLES = {
    "throughput": "throughput",
    "sustainable_rate": "sustainable rate",
    "concurrency": "concurrency",
    "accuracy": "accuracy",
}
_UNITS = {"throughput": "requests/s", "sustainable_rate": "requests/s", "concurrency": "requests at once"}
_SHORT = {
    "max_batch_size": "batch ≤ {}",
    "instances": "{} inst.",
    "threads": "{} thr.",
    "queue_delay_us": "delay {} µs",
    "preferred_batch_sizes": "preferred {}",
    "kind": "{}",
    "accelerator": "accelerator {}",
    "response_cache": "cache {}",
}
_LABEL = 46


def figure_title(name: str) -> str:
    """`latency_ms p99` as `p99 latency`."""
    metric, _, qualifier = name.partition(" ")
    if metric.endswith("_ms"):
        return f"{qualifier} {metric.removesuffix('_ms').replace('_', ' ')}".strip()
    return f"{_TITLES.get(metric, metric.replace('_', ' '))} {qualifier}".strip()


def unit(name: str) -> str:
    metric = name.partition(" ")[0]
    return "ms" if metric.endswith("_ms") else _UNITS.get(metric, "")


def axis_title(name: str) -> str:
    said = f"{figure_title(name)} ({unit(name)})" if unit(name) else figure_title(name)
    return said[:1].upper() + said[1:]


def more_is_better(name: str) -> bool:
    return not name.partition(" ")[0].endswith("_ms")


def number(value: float) -> str:
    """Three or four figures, thousands apart."""
    if not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def closed(interval: Interval) -> bool:
    """Whether both its ends are known: too few blocks tell no interval."""
    return math.isfinite(interval.high) and interval.low > 0


def ends(interval: Interval) -> str:
    """As `398 to 428`, or `398 or more` where nothing was found above; empty where too few blocks tell."""
    if closed(interval):
        return f"{number(interval.low)} to {number(interval.high)}"
    return f"{number(interval.low)} or more" if interval.low > 0 else ""


def said(interval: Interval, of_unit: str = "") -> str:
    """As `412 requests/s (398 to 428)`."""
    value, between = f"{number(interval.value)} {of_unit}".rstrip(), ends(interval)
    return f"{value} ({between})" if between else value


def times(ratio: Interval) -> str:
    """As `1.84 times (1.71 to 1.98)`."""
    ends = f" ({ratio.low:.2f} to {ratio.high:.2f})" if closed(ratio) else ""
    return f"{ratio.value:.2f} times{ends}"


def moment(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{whole // 60} min {whole % 60} s"


def value_words(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parameters(values: Mapping[str, Json]) -> str:
    return ", ".join(f"{name} {value_words(value)}" for name, value in _ordered(values))


def label(trial: Trial, versions: int = 1) -> str:
    """Short enough for a legend, and begun with the trial's number, so that no two are the same. `versions`: so many are in the
    sweep."""
    words = [f"v{trial.version}"] if versions > 1 else []
    if trial.base:
        return f"{trial.number} · {', '.join([*words, 'base config'])}"
    words += [_SHORT.get(name, f"{name} {{}}").format(_brief(value)) for name, value in _ordered(trial.parameters)]
    return cut(f"{trial.number} · {', '.join(words)}" if words else str(trial.number), _LABEL)


def cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1].rstrip(" ,·") + "…"


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """As `a, b and c`."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def objective(one: JsonObject) -> str:
    """As `p99 latency at most 30 ms`."""
    name = f"{one.get('metric', '')} {one.get('qualifier') or ''}".strip()
    asked = str(one.get("direction", "")).replace("_", " ")
    return f"{figure_title(name)} {asked} {one.get('bound', '')} {unit(name)}".rstrip()


def _ordered(values: Mapping[str, Json]) -> list[tuple[str, Json]]:
    """As they are set; JSON that was kept has an order of its own."""
    order = list(SHORT)
    return sorted(values.items(), key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair[0]))


def _brief(value: Json) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return cut(value_words(value), 24)
