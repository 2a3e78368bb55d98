# A capsule: all that a sweep rests on, in one document that can be checked and measured again elsewhere. Pure.
"""The document is canonical JSON; the bytes that it names by digest (recorded inferences, and artifacts where they were asked for)
lie beside it in the file (controlplane/services/capsules.py, which has the layout). Fields of a later schema are refused, not
skipped: what nobody looked at would pass for checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TypeVar

from controlplane.domain.artifacts import FileEntry, Manifest, check_digest
from controlplane.domain.canonical import Json, JsonObject, digest
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_rounds import Measurement, Requests
from controlplane.domain.sweeps import Sweep, SweepState, Trial, evidence_digest
from controlplane.domain.times import format_instant, parse_instant
from controlplane.errors import CapsuleInvalid, ControlPlaneError

T = TypeVar("T")
SCHEMA = "triton-controlplane/capsule/1"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
MOST_TRIALS, MOST_MEASUREMENTS = 20_000, 200_000


@dataclass(frozen=True, slots=True)
class CapsuleVersion:
    """One version as it was measured: its files, and what was sent to it, of recorded inferences that a replay needs."""

    manifest: Manifest
    requests: Requests

    def to_json(self) -> JsonObject:
        one = self.requests
        return {
            "manifest": self.manifest.to_json(),
            "golden": one.golden,
            "rows": one.rows,
            "sequences": one.sequences,
        }


@dataclass(frozen=True, slots=True)
class Capsule:
    """`blobs` are what lies beside the document, by digest with its size. `dropped` says in words what was renamed or left out; empty
    where nothing was: then every digest can be taken again."""

    sweep: Sweep
    trials: tuple[Trial, ...]
    measurements: tuple[Measurement, ...]
    versions: Mapping[int, CapsuleVersion]
    beside: Manifest
    fingerprints: Mapping[str, Fingerprint]
    blobs: Mapping[str, int]
    exported_at: datetime
    control_plane: str
    dropped: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """With the digest of all the rest."""
        tree: JsonObject = {
            "schema": SCHEMA,
            "exported_at": format_instant(self.exported_at),
            "control_plane": self.control_plane,
            "dropped": list(self.dropped),
            "sweep": sweep_json(self.sweep),
            "trials": [_trial_json(one) for one in self.trials],
            "measurements": [one.to_json() for one in self.measurements],
            "versions": {str(number): one.to_json() for number, one in sorted(self.versions.items())},
            "beside": self.beside.to_json(),
            "fingerprints": {name: one.to_json() for name, one in sorted(self.fingerprints.items())},
            "blobs": {name: str(size) for name, size in sorted(self.blobs.items())},
        }
        return {**tree, "digest": digest(tree)}

    @property
    def digest(self) -> str:
        return str(self.to_json()["digest"])


def capsule_from_json(tree: Json) -> Capsule:
    """Of what `to_json` made, whoever wrote it. Raises CapsuleInvalid with the place; digests are looked at by `findings`."""
    top = _object(tree, "the capsule")
    schema = top.get("schema")
    if schema != SCHEMA:
        raise CapsuleInvalid(
            f"the capsule has the schema {str(schema)[:60]!r}, this control plane reads {SCHEMA!r}",
            hint="a newer control plane may have written it",
        )
    _known(
        top, "the capsule", "schema exported_at control_plane dropped sweep trials measurements versions beside fingerprints "
        "blobs digest"
    )  # fmt: skip
    _printable(top)
    rest = {name: value for name, value in top.items() if name != "digest"}
    found = _part("digest", digest, rest)
    if found != top["digest"]:
        raise CapsuleInvalid(
            f"the capsule's document has the digest {found}, and says {str(top['digest'])[:80]}",
            hint="it was changed or cut off on its way: get it again",
        )
    trials, measurements = _list(top["trials"], "trials"), _list(top["measurements"], "measurements")
    for what, count, most in (
        ("trials", len(trials), MOST_TRIALS),
        ("measurements", len(measurements), MOST_MEASUREMENTS),
    ):
        if count > most:
            raise CapsuleInvalid(f"the capsule has {count} {what}, and may have {most}")
    capsule = Capsule(
        sweep=_part("sweep", _sweep, top["sweep"]),
        trials=tuple(_part(f"trials[{at}]", _trial, one) for at, one in enumerate(trials)),
        measurements=tuple(_part(f"measurements[{at}]", _measurement, one) for at, one in enumerate(measurements)),
        versions={
            _part("versions", _count, name): _part(f"versions.{name[:20]}", _version, one)
            for name, one in _object(top["versions"], "versions").items()
        },
        beside=_part("beside", _manifest, top["beside"]),
        fingerprints={
            name: _part(f"fingerprints.{name[:80]}", Fingerprint.from_json, one)
            for name, one in _object(top["fingerprints"], "fingerprints").items()
        },
        blobs={
            _part("blobs", _blob, name): _part(f"blobs.{name[:80]}", _count, size)
            for name, size in _object(top["blobs"], "blobs").items()
        },
        exported_at=_part("exported_at", _instant, top["exported_at"]),
        control_plane=_part("control_plane", _text, top["control_plane"]),
        dropped=tuple(_part("dropped", _text, one) for one in _list(top["dropped"], "dropped")),
    )
    if capsule.to_json() != dict(top):
        raise CapsuleInvalid("the capsule says something in another form than this control plane writes it")
    return capsule


def findings(capsule: Capsule) -> tuple[str, ...]:
    """In words, every digest inside that is not what it says, but those that are `unchecked`; the bytes beside are checked where they are
    read."""
    return tuple(_findings(capsule))


def unchecked(capsule: Capsule) -> tuple[str, ...]:
    """Whose digests nobody can take again, because what they are of held names that were dropped: who wrote the document could have
    written anything there."""
    return ("configs", "candidates", "fingerprints", "spec", "evidence") if capsule.dropped else ()


def _findings(capsule: Capsule) -> Iterator[str]:
    named, numbers = not unchecked(capsule), {trial.candidate for trial in capsule.trials}
    for trial in capsule.trials:
        where = f"trial {trial.number}"
        version = capsule.versions.get(trial.version)
        if version is None:
            yield f"{where} is of version {trial.version}, which the capsule has not"
        elif version.manifest.digest != trial.artifact:
            yield f"{where} is of the artifact {trial.artifact}, and version {trial.version} is {version.manifest.digest}"
        if trial.config is not None and named:
            config = digest(trial.config)
            if config != trial.config_digest:
                yield f"{where}: its config is {config}, and says {trial.config_digest}"
            own = digest({"version": trial.version, "config": trial.config})
            if own != trial.candidate:
                yield f"{where}: it is the candidate {own}, and says {trial.candidate}"
    for name, fingerprint in capsule.fingerprints.items():
        if fingerprint.digest != name and named:
            yield f"the fingerprint {name} is {fingerprint.digest}"
    for at, one in enumerate(capsule.measurements):
        if one.order.candidate not in numbers:
            yield f"measurement {at} is of {one.order.candidate}, which is no trial"
        if one.fingerprint and one.fingerprint not in capsule.fingerprints:
            yield f"measurement {at} was made on {one.fingerprint}, which the capsule has not"
    if named and capsule.sweep.spec_digest != digest(capsule.sweep.spec):
        yield f"the spec is {digest(capsule.sweep.spec)}, and says {capsule.sweep.spec_digest}"
    if (capsule.sweep.answer is None) != (capsule.sweep.evidence is None):
        yield "the sweep has an answer and no evidence digest, or a digest and no answer: they come together"
    elif named and capsule.sweep.evidence is not None:
        rows = evidence_digest(capsule.sweep, capsule.trials, capsule.measurements)
        if rows != capsule.sweep.evidence:
            yield f"the sweep's evidence digest is {rows} by its rows, and says {capsule.sweep.evidence}"


def needed(capsule: Capsule) -> dict[str, int | None]:
    """The blobs that a replay needs, with the size where it is known."""
    found: dict[str, int | None] = {}
    for version in capsule.versions.values():
        found[version.requests.golden] = capsule.blobs.get(version.requests.golden)
        found |= {entry.sha256: entry.size for entry in version.manifest.files}
    return found | {entry.sha256: entry.size for entry in capsule.beside.files}


def sweep_json(sweep: Sweep) -> JsonObject:
    """As it was at its end; who measures, and how far it is, is of no use later."""
    tree: JsonObject = {field.name: getattr(sweep, field.name) for field in fields(sweep) if field.name != "progress"}
    return {
        **tree,
        "objectives": list(sweep.objectives),
        "state": sweep.state.value,
        **{
            name: None if (at := getattr(sweep, name)) is None else format_instant(at)
            for name in ("created_at", "began_at", "finished_at")
        },
    }


def _printable(tree: Json) -> None:
    """Whoever looks at a stranger's capsule has it on a terminal: nothing in it steers one."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and (found := _CONTROL.search(value)):
            raise CapsuleInvalid(f"a text of the capsule holds the control character {ord(found[0]):#04x}")


def _sweep(tree: Json) -> Sweep:
    top = _object(tree, "sweep")
    _known(top, "sweep", " ".join(field.name for field in fields(Sweep) if field.name != "progress"))
    answer = top["answer"]
    return Sweep(
        id=_count(top["id"]),
        model=_text(top["model"]),
        **{name: _tree(top[name]) for name in ("spec", "space", "load", "plan")},
        spec_digest=_text(top["spec_digest"]),
        objectives=tuple(_tree(one) for one in _list(top["objectives"], "objectives")),
        state=SweepState(_text(top["state"])),
        started_by=_text(top["started_by"]),
        created_at=_instant(top["created_at"]),
        environment=_text_or_none(top["environment"]),
        base_revision=None if top["base_revision"] is None else _count(top["base_revision"]),
        bench=_text(top["bench"]),
        began_at=None if top["began_at"] is None else _instant(top["began_at"]),
        finished_at=None if top["finished_at"] is None else _instant(top["finished_at"]),
        message=_text(top["message"]),
        answer=None if answer is None else _tree(answer),
        evidence=_text_or_none(top["evidence"]),
    )


def _trial_json(trial: Trial) -> JsonObject:
    tree: JsonObject = {field.name: getattr(trial, field.name) for field in fields(trial)}
    return {**tree, "refused": list(trial.refused), "fates": list(trial.fates)}


def _trial(tree: Json) -> Trial:
    top = _object(tree, "a trial")
    _known(top, "a trial", " ".join(field.name for field in fields(Trial)))
    base = top["base"]
    if not isinstance(base, bool):
        raise TypeError("base is not true or false")
    return Trial(
        sweep=_count(top["sweep"]),
        number=_count(top["number"]),
        candidate=_text(top["candidate"]),
        version=_count(top["version"]),
        artifact=_text(top["artifact"]),
        config=None if top["config"] is None else _tree(top["config"]),
        config_digest=_text(top["config_digest"]),
        parameters=_tree(top["parameters"]),
        base=base,
        refused=tuple(_text(one) for one in _list(top["refused"], "refused")),
        failure=_text(top["failure"]),
        log=_text(top["log"]),
        fates=tuple(_tree(one) for one in _list(top["fates"], "fates")),
    )


def _version(tree: Json) -> CapsuleVersion:
    top = _object(tree, "a version")
    _known(top, "a version", "manifest golden rows sequences")
    sequences = top["sequences"]
    if not isinstance(sequences, bool):
        raise TypeError("sequences is not true or false")
    return CapsuleVersion(
        _manifest(top["manifest"]), Requests(_text(top["golden"]), _count(top["rows"]), sequences=sequences)
    )


def _manifest(tree: Json) -> Manifest:
    """Stricter than Manifest.from_json, which reads what we wrote."""
    top = _object(tree, "a manifest")
    _known(top, "a manifest", "files")
    entries = []
    for one in _list(top["files"], "files"):
        file = _object(one, "a file")
        _known(file, "a file", "path size sha256")
        entries.append(FileEntry(_text(file["path"]), _count(file["size"]), _text(file["sha256"])))
    return Manifest(tuple(entries))


def _measurement(tree: Json) -> Measurement:
    return Measurement.from_json(_object(tree, "a measurement"))


def _blob(name: Json) -> str:
    return check_digest(_text(name))


def _instant(value: Json) -> datetime:
    return parse_instant(_text(value))


def _part(where: str, read: Callable[[Json], T], value: Json) -> T:
    """What `read` makes of it; whatever is wrong is said with its place."""
    try:
        return read(value)
    except CapsuleInvalid:
        raise
    except ControlPlaneError as error:
        raise CapsuleInvalid(f"the capsule cannot be read at {where}: {error.message}"[:500]) from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CapsuleInvalid(f"the capsule cannot be read at {where}: {str(error)[:300]}") from None


def _known(tree: Mapping[str, Json], what: str, names: str) -> None:
    wanted = set(names.split())
    for word, odd in (("an unknown field", tree.keys() - wanted), ("no field", wanted - tree.keys())):
        if odd:
            raise CapsuleInvalid(
                f"{what} has {word} {min(odd)[:60]!r}", hint="a newer control plane may have written it"
            )


def _object(tree: Json, what: str) -> Mapping[str, Json]:
    if not isinstance(tree, Mapping):
        raise CapsuleInvalid(f"{what} is not an object but {str(tree)[:60]!r}")
    return tree


def _tree(tree: Json) -> JsonObject:
    if not isinstance(tree, Mapping):
        raise TypeError(f"{str(tree)[:60]!r} is not an object")
    return dict(tree)


def _list(tree: Json, what: str) -> Sequence[Json]:
    if not isinstance(tree, list):
        raise CapsuleInvalid(f"{what} is not a list but {str(tree)[:60]!r}")
    return tree


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:60]!r} is not text")
    return value


def _text_or_none(value: Json) -> str | None:
    return None if value is None else _text(value)


def _count(value: Json) -> int:
    """A whole number, or one in digits, as sizes and versions are written."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{str(value)[:60]!r} is not a count")
    return value
