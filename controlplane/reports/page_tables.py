# The tables of a report's page: every trial, what it was measured on, every block, the digests.
from __future__ import annotations

from collections import Counter
from shlex import quote
from statistics import median

from controlplane.domain.fingerprints import Fingerprint, Names
from controlplane.domain.sweep_figures import RATE, THROUGHPUT
from controlplane.domain.sweep_search import figure_name
from controlplane.domain.times import format_instant
from controlplane.reports.html import Markup, inside, tag
from controlplane.reports.standings import Findings, Place, Standing
from controlplane.reports.wording import counted, ends, figure_title, number, parameters, unit

_COLUMNS = 4
_ELSEWHERE = "only its digest is known here; tritonctl sweep export {} --out FILE has all of it, and tritonctl sweep report FILE shows it"
_RATES = " Below a highest rate that was confirmed: what held and what did not, and of its latencies the least and the most block."


def trials_table(findings: Findings) -> Markup:
    """Of each its place, its figures with their intervals, and why it lost, was refused or could not be measured."""
    if not findings.material.trials:
        return tag("p", "The sweep has no trial.")
    names = _shown(findings)
    blocks = Counter(one.order.candidate for one in findings.material.measurements)
    head = tag(
        "tr",
        [tag("th", name, scope="col") for name in ("trial", "config", "outcome")],
        [tag("th", _heading(name), scope="col", class_="number") for name in names],
        tag("th", "blocks", scope="col", class_="number"),
    )
    rows = [
        tag(
            "tbody",
            tag(
                "tr",
                tag("th", one.trial.name, scope="row", rowspan="2"),
                tag("td", f"v{one.trial.version} ", _config(one), class_="wide"),
                tag("td", one.word),
                [_cell(findings, one.trial.number, name) for name in names],
                tag("td", blocks[one.trial.candidate], class_="number"),
            ),
            tag("tr", tag("td", one.why, _log(one), class_="why", colspan=str(3 + len(names)))),
            class_="chosen" if one.place is Place.CHOSEN else None,
        )
        for one in findings.standings.values()
    ]
    caption = (
        f"{counted(len(rows), 'trial')}: the chosen, the front, the others by what they do, then those that could not be measured or "
        "were refused; below each, why. Below a figure its interval of 95 %; without one, too few blocks tell."
    ) + (_RATES if findings.held else "")
    return tag("div", tag("table", tag("caption", caption), tag("thead", head), rows, class_="trials"), class_="scroll")


def measured_on(findings: Findings) -> Markup:
    """Each environment that blocks were measured in, and how much of the processor was taken away meanwhile."""
    counts = Counter(one.fingerprint for one in findings.material.measurements if one.fingerprint)
    if not counts:
        return tag("p", "Nothing was measured.")
    found: list[Markup] = []
    for digest, count in counts.most_common():
        known = findings.material.fingerprints.get(digest)
        said = [("blocks", f"{count:,}"), ("digest", digest)]
        said += _environment(known) if known else [("what it is", _ELSEWHERE.format(findings.material.sweep.id))]
        found.append(tag("dl", [inside(tag("dt", name), tag("dd", value)) for name, value in said], class_="facts"))
    stolen = [one.steal_ppm / 1e4 for one in findings.material.measurements if one.steal_ppm is not None]
    if stolen:
        words = f"Processor time that the host took away while blocks were measured: {median(stolen):.2f} % in the median block, "
        found.append(tag("p", f"{words}{max(stolen):.2f} % at most."))
    return inside(found)


def evidence_section(findings: Findings) -> Markup:
    material = findings.material
    sweep, now, capsule = material.sweep, material.digest_now, material.capsule
    log, commands = "The", f"tritonctl audit list --subject sweep:{sweep.id}\ntritonctl audit verify"
    if capsule is not None:
        log, commands = "Where it ran, the", f"tritonctl sweep replay {quote(capsule)} --verify"
    if sweep.evidence is None:
        verdict = "The sweep has no answer, so nothing is sealed yet."
    elif material.dropped:
        verdict = f"It cannot be taken again here: {'; '.join(material.dropped)}."
    elif sweep.evidence == now:
        verdict = "Taken again from the rows that this report is made of, it is the same."
    else:
        verdict = f"Taken again from the rows that this report is made of, it is {now}: they are not the rows that it was made of."
    said = [
        ("evidence", sweep.evidence or "none"),
        ("spec", sweep.spec_digest),
        *((f"artifact of version {version}", artifact) for version, artifact in _artifacts(findings)),
    ]
    return inside(
        tag("dl", [inside(tag("dt", name), tag("dd", tag("code", value))) for name, value in said], class_="facts"),
        tag("p", verdict),
        tag(
            "p",
            "The evidence digest is the SHA-256 of canonical JSON (RFC 8785) of the spec's digest, the objectives, the plan, every trial "
            f"with what became of it, every measurement with its histograms, and the answer. {log} audit log holds it in the entry "
            f"of the sweep's end. {'The log itself' if capsule is None else 'This capsule'} can be verified:",
        ),
        tag("pre", tag("code", commands)),
    )


def blocks_section(findings: Findings) -> Markup:
    """Everything that was measured, with the seed that decided its arrivals."""
    material = findings.material
    names = {trial.candidate: trial.name for trial in material.trials}
    head = [
        tag("th", name, scope="col")
        for name in (
            "round",
            "place",
            "trial",
            "stage",
            "load",
            "seconds",
            "seed",
            "verdict",
            "answers",
            "failed",
            "late",
            "began",
        )
    ]
    rows = [
        tag(
            "tr",
            [
                tag("td", value)
                for value in (
                    one.round, one.order.place, names.get(one.order.candidate, one.order.candidate[:19]), one.stage.value,
                    one.order.step.label, f"{one.seconds:.3g}",
                    str(one.order.seed), "; ".join((one.verdict.value, *one.reasons, *([one.failure] if one.failure else []))),
                    f"{one.completed:,}", one.failed, one.late, format_instant(one.started_at)[11:19],
                )
            ],
        )
        for one in material.measurements
    ]  # fmt: skip
    if not rows:
        return tag("p", "No block was measured.")
    return inside(
        tag(
            "p",
            "The search's seed decides the order of blocks; each block has a seed of its own, which decides the arrivals and the order "
            "of the requests. The same spec and seed give the same plan, order and requests.",
        ),
        tag(
            "details",
            tag("summary", f"All {counted(len(rows), 'block')} with their seeds and verdicts"),
            tag("div", tag("table", tag("thead", tag("tr", head)), tag("tbody", rows)), class_="scroll"),
        ),
    )


def _shown(findings: Findings) -> list[str]:
    """The figures that decide, those that objectives name first; of a ladder not those of each step."""
    asked = findings.material.asked
    there = {name for figures in findings.figures.values() for name in figures}
    named = [figure_name(one) for one in asked.objectives]
    order = dict.fromkeys((*named, *(one.name for one in asked.figures), RATE, THROUGHPUT, findings.latency or ""))
    if RATE in there:
        order.pop(THROUGHPUT, None)  # the same: a rate that is kept up is answered
    return [name for name in order if name in there and " at " not in name][:_COLUMNS]


def _heading(name: str) -> str:
    return f"{figure_title(name)}, {unit(name)}" if unit(name) else figure_title(name)


def _cell(findings: Findings, trial: int, name: str) -> Markup:
    interval = findings.figures.get(trial, {}).get(name)
    if interval is None:
        return tag("td", "–", class_="number")
    return tag("td", number(interval.value), tag("small", ends(interval)), class_="number")


def _config(one: Standing) -> str:
    said = parameters(one.trial.parameters)
    return f"base config{f': {said}' if said else ''}" if one.trial.base else said


def _log(one: Standing) -> Markup | None:
    if not one.trial.log:
        return None
    return tag("details", tag("summary", "the server's log"), tag("pre", one.trial.log))


def _artifacts(findings: Findings) -> list[tuple[int, str]]:
    return sorted({(trial.version, trial.artifact) for trial in findings.material.trials if trial.artifact})


def _environment(one: Fingerprint) -> list[tuple[str, str]]:
    host, serving = one.host, one.serving
    found: list[tuple[str, str | None]] = []
    if host is not None:
        memory = None if host.memory_bytes is None else f"{host.memory_bytes / 2**30:.1f} GiB"
        usable = None if host.usable_millicpus is None else f"{host.usable_millicpus / 1000:g} usable"
        cores = [
            f"{host.cores} cores" if host.cores else None,
            f"{host.threads} logical" if host.threads else None,
            usable,
        ]
        gpus = None if host.gpus is None else "; ".join(gpu.model for gpu in host.gpus) or "none"
        found += [("processor", host.cpu_model), ("processors", ", ".join(part for part in cores if part) or None),
                  ("frequency governor", host.governor), ("memory", memory), ("GPUs", gpus), ("kernel", host.kernel)]  # fmt: skip
    found += [
        ("Triton", " ".join(part for part in (serving.triton_version, serving.build) if part) or None),
        ("backends", _versions(serving.backends)),
        ("container image", serving.image),
        ("load", "from the server's own host" if one.local else "from another host"),
        ("control plane", " ".join(part for part in (one.control_plane, one.commit) if part)),
        ("packages", _versions(one.packages)),
    ]
    return [(name, value) for name, value in found if value]


def _versions(names: Names | None) -> str | None:
    return ", ".join(f"{name} {version}" for name, version in names) or None if names else None
