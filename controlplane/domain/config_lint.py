# Lint: what Triton would refuse, and what it would accept and the user regret.
from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from controlplane.domain import config_lint_instances, config_lint_names, config_lint_scheduling, config_lint_tensors
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Signature
from controlplane.domain.config_findings import Finding, Severity, Subject
from controlplane.domain.servers import HostFacts
from controlplane.errors import ConfigInvalid

_ROOMS = (config_lint_names, config_lint_tensors, config_lint_scheduling, config_lint_instances)


def lint(
    config: JsonObject,
    *,
    model: str,
    signatures: Mapping[int, Signature],
    host: HostFacts | None,
    embedded: bool = False,
    beside: Collection[str] = (),
) -> tuple[Finding, ...]:
    """What is wrong with `config` (the codec's normal form, without version policy) for these versions of `model` on
    this host, refusals first. `embedded`: our own server runs it, not NVIDIA's container. `beside`: paths of the files
    beside the config."""
    subject = Subject(config, model, signatures, host, embedded, beside)
    found = dict.fromkeys(finding for room in _ROOMS for finding in room.findings(subject))
    return tuple(
        sorted(
            _once(found, signatures),
            key=lambda finding: (finding.severity is Severity.REGRET, finding.path, finding.code),
        )
    )


def _once(found: Iterable[Finding], versions: Iterable[int]) -> list[Finding]:
    """What is the same in several versions is found once, of the first of them."""
    seen: dict[Finding, list[tuple[Finding, int]]] = {}
    for finding in found:
        number = next((n for n in versions if re.search(rf"\bversion {n}\b", finding.message)), 0)
        alike = replace(finding, message=re.sub(rf"\bversion {number}\b", "version N", finding.message))
        seen.setdefault(alike, []).append((finding, number))
    return [
        replace(first, message=f"{first.message} (also version {', '.join(str(n) for _, n in others)})")
        if others
        else first
        for (first, _), *others in seen.values()
    ]


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raises ConfigInvalid with every refusal among `findings`; regrets pass."""
    refusals = [finding for finding in findings if finding.severity is Severity.REFUSED]
    if refusals:
        raise ConfigInvalid(
            "; ".join(finding.message for finding in refusals),
            hint="; ".join(dict.fromkeys(finding.hint for finding in refusals)),
            details={
                "findings": [{"code": f.code, "path": f.path, "message": f.message, "hint": f.hint} for f in refusals]
            },
        )
