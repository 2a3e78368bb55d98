# Lint: what Triton would refuse, and what it would accept and the user regret.
from __future__ import annotations

from collections.abc import Collection, Mapping

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
    return tuple(sorted(found, key=lambda finding: (finding.severity is Severity.REGRET, finding.path, finding.code)))


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raises ConfigInvalid with every refusal among `findings`; regrets pass."""
    refusals = [finding for finding in findings if finding.severity is Severity.REFUSED]
    if refusals:
        raise ConfigInvalid(
            "; ".join(finding.message for finding in refusals),
            hint="; ".join(dict.fromkeys(finding.hint for finding in refusals)),
            details={"findings": [{"code": f.code, "path": f.path, "message": f.message} for f in refusals]},
        )
