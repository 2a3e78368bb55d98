# The only engine's mind: from what was observed and what is desired to the steps that are left.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.artifacts import NO_FILES, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.servers import ModelFiles, VersionState


class Effect(StrEnum):
    """External effects, each idempotent. Their order here is the order of their execution."""

    UNLOAD = "unload"
    REMOVE_MODEL = "remove_model"
    REMOVE_STRAYS = "remove_strays"
    WRITE_VERSION = "write_version"
    REMOVE_VERSION = "remove_version"
    WRITE_BESIDE = "write_beside"
    WRITE_CONFIG = "write_config"
    TOUCH = "touch"
    LOAD = "load"
    KILL_SERVER = "kill_server"
    RELEASE_SERVER = "release_server"


_IN_THE_WAY = "it lies where a version belongs"
"""Why what is no version is moved from a version's place; that the version is missing says it all to people."""

FILE_EFFECTS = frozenset(
    {
        Effect.REMOVE_MODEL,
        Effect.REMOVE_STRAYS,
        Effect.WRITE_VERSION,
        Effect.REMOVE_VERSION,
        Effect.WRITE_BESIDE,
        Effect.WRITE_CONFIG,
        Effect.TOUCH,
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """One effect on one server. `version` is set for effects on a version directory; `because` is for the journal."""

    effect: Effect
    because: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """What one model should be on one server. `config` holds the version policy; None means that nothing is deployed.

    `serving` are the manifests of the versions that the config loads; `retained` those of other accepted revisions,
    whose directories may stay on disk as rollback points; `beside` are the files beside the config. `outgrown` are those of
    the retained ones that are older than what the policy keeps: they are no drift, and no change waits for them to leave.
    """

    config: JsonObject | None
    serving: Mapping[int, Manifest]
    retained: Mapping[int, Manifest]
    beside: Manifest = NO_FILES
    outgrown: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Observed:
    """What one model is on one server.

    `config` is the parsed config.pbtxt, None when missing or unreadable. `reported` is what Triton says that it loaded,
    None when nothing is or nobody asked; `mismatches` are the differences between that and the read-back that the desired
    config should give. `loaded_ns` is `files.newest_ns` as it was when our last load of this model on this server succeeded, None when that
    is not known.
    """

    files: ModelFiles
    config: JsonObject | None
    versions: tuple[VersionState, ...]
    mismatches: tuple[str, ...]
    loaded_ns: int | None
    reported: JsonObject | None = None

    @property
    def ready(self) -> frozenset[int]:
        return frozenset(v.number for v in self.versions if v.state == "READY")


def converge(observed: Observed, desired: Desired) -> tuple[Step, ...]:
    """The steps that are left, empty when files and server say what is desired.

    Nothing is remembered between calls but `loaded_ns`: the same observation gives the same steps, whether this is an
    apply, an undo, a recovery after a crash or a server that restarted.
    """
    if desired.config is None:
        return _remove(observed)
    steps = _files(observed, desired)
    if steps:
        return (*steps, Step(Effect.LOAD, "files changed"))
    return _memory(observed, desired)


def file_differences(observed: Observed, desired: Desired) -> tuple[str, ...]:
    """In words, how the files differ from what is desired: bytes or config, not what is loaded."""
    return tuple(step.because for step in _files(observed, desired) if step.because != _IN_THE_WAY)


def outgrown(observed: Observed, desired: Desired) -> tuple[Step, ...]:
    """What may leave the repository when nothing else is to do."""
    there = sorted((observed.files.versions.keys() & desired.outgrown) - desired.serving.keys())
    because = "version {} is older than the revisions that the policy keeps"
    return tuple(Step(Effect.REMOVE_VERSION, because.format(number), number) for number in there)


def differences(observed: Observed, desired: Desired) -> tuple[str, ...]:
    """In words, how the files and the server differ from what is desired; empty when they agree."""
    found = []
    if desired.config is None:
        if observed.files.config_text is not None or observed.files.versions or observed.files.beside.files:
            found.append("files are there of a model that is not deployed")
        if observed.ready:
            found.append("a model is served that is not deployed")
        return tuple(found)
    found += file_differences(observed, desired)
    serving = frozenset(desired.serving)
    if missing := sorted(serving - observed.ready):
        found.append(f"not served: version {', '.join(map(str, missing))}")
    if extra := sorted(observed.ready - serving):
        found.append(f"served without being deployed: version {', '.join(map(str, extra))}")
    found += [f"loaded config: {text}" for text in observed.mismatches]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Found:
    """An unmanaged model as the first change of it met it: the config and the files beside it, the versions that were
    READY, and every version directory. The artifact store has the bytes of each."""

    config: JsonObject
    ready: tuple[int, ...]
    versions: tuple[int, ...]
    beside: Manifest = NO_FILES

    def to_json(self) -> JsonObject:
        return {
            "config": self.config,
            "ready": list(self.ready),
            "versions": list(self.versions),
            "beside": self.beside.to_json(),
        }

    @classmethod
    def from_json(cls, tree: JsonObject) -> Found:
        config, ready, versions, beside = tree["config"], tree["ready"], tree["versions"], tree.get("beside")
        assert isinstance(config, dict)
        assert isinstance(ready, list)
        assert isinstance(versions, list)
        return cls(
            config,
            tuple(int(str(n)) for n in ready),
            tuple(int(str(n)) for n in versions),
            Manifest.from_json(beside) if isinstance(beside, dict) else NO_FILES,
        )

    def desired(self, registered: Mapping[int, Manifest]) -> Desired:
        """What puts it back."""
        return Desired(
            config=self.config,
            serving={number: registered[number] for number in self.ready},
            retained={number: registered[number] for number in self.versions if number not in self.ready},
            beside=self.beside,
        )


def lies_there(observed: Observed) -> bool:
    """Whether there is anything of this model, in the files or in the server."""
    files = observed.files
    return bool(files.config_text is not None or files.versions or files.beside.files or files.strays or observed.ready)


def unmanaged(observed: Observed, desired: Desired, registered: Mapping[int, Manifest]) -> tuple[str, ...]:
    """In words, why what lies there cannot be taken over by a change to `desired` and put back if that fails: empty when
    the catalog knows every byte of it, and it is served."""
    files = observed.files
    found = []
    if files.strays:
        found.append(f"not of a registered version: {', '.join(files.strays)}")
    if other := _changed(files.beside, desired.beside):
        found.append(f"beside the config, and not as the change has it: {', '.join(other)}")
    if observed.config is None:
        found.append("it has no config.pbtxt that could be put back")
    for number, there in sorted(files.versions.items()):
        known = registered.get(number)
        if known is None:
            found.append(f"version {number} is not registered")
        elif known.digest != there.digest:
            found.append(f"version {number} has other bytes than the registered ones")
    found += [f"version {n} is not there" for n in sorted(desired.serving) if n not in files.versions]
    found += [f"version {n} is served without files" for n in sorted(observed.ready - files.versions.keys())]
    if not observed.ready:
        found.append("it is not served")
    return tuple(found)


def _remove(observed: Observed) -> tuple[Step, ...]:
    steps = []
    if observed.ready or any(v.state == "LOADING" for v in observed.versions):
        steps.append(Step(Effect.UNLOAD, "not deployed"))
    files = observed.files
    if files.config_text is not None or files.versions or files.beside.files or files.strays:
        steps.append(Step(Effect.REMOVE_MODEL, "not deployed"))
    return tuple(steps)


def _files(observed: Observed, desired: Desired) -> list[Step]:
    steps = []
    files = observed.files
    places = {str(number) for number in desired.serving}
    strange = [name for name in files.strays if name not in places]
    if files.strays:
        because = f"does not belong: {', '.join(strange)}" if strange else _IN_THE_WAY
        steps.append(Step(Effect.REMOVE_STRAYS, because))
    for number, manifest in sorted(desired.serving.items()):
        there = files.versions.get(number)
        if there is None or (manifest.files and not there.files):
            why = ": its directory is empty, a link or unreadable" if there or str(number) in files.strays else ""
            steps.append(Step(Effect.WRITE_VERSION, f"version {number} is missing{why}", number))
        elif there.digest != manifest.digest:
            steps.append(Step(Effect.WRITE_VERSION, f"version {number} has other bytes ({there.digest})", number))
    for number, there in sorted(files.versions.items()):
        if number in desired.serving:
            continue
        kept = desired.retained.get(number)
        if kept is None or kept.digest != there.digest:
            steps.append(Step(Effect.REMOVE_VERSION, f"version {number} is not of any accepted revision", number))
    if files.beside != desired.beside:
        steps.append(Step(Effect.WRITE_BESIDE, _beside(files.beside, desired.beside)))
    if observed.config != desired.config:
        steps.append(Step(Effect.WRITE_CONFIG, "config.pbtxt differs"))
    return steps


def _changed(there: Manifest, wanted: Manifest) -> list[str]:
    """Paths that are in one of them only, or have other bytes."""
    return sorted({entry.path for entry in {*there.files} ^ {*wanted.files}})


def _beside(there: Manifest, wanted: Manifest) -> str:
    """In words, how the files beside the config differ."""
    before, after = ({entry.path for entry in side.files} for side in (there, wanted))
    changed = _changed(there, wanted)
    kinds = {
        "does not belong": [path for path in changed if path not in after],
        "missing": [path for path in changed if path not in before],
        "has other bytes": [path for path in changed if path in before & after],
    }
    return "; ".join(f"{kind}: {', '.join(paths)}" for kind, paths in kinds.items() if paths)


def _memory(observed: Observed, desired: Desired) -> tuple[Step, ...]:
    """Files are right: is what is loaded theirs?"""
    serving = frozenset(desired.serving)
    if observed.mismatches:
        return (
            Step(Effect.TOUCH, "the loaded config differs though the files are right: an override sticks"),
            Step(Effect.LOAD, f"the loaded config differs: {'; '.join(observed.mismatches)}"),
        )
    if observed.ready != serving:
        return (Step(Effect.LOAD, f"serves {sorted(observed.ready)} instead of {sorted(serving)}"),)
    if observed.loaded_ns != observed.files.newest_ns:
        return (Step(Effect.LOAD, "no load is known to be newer than the files"),)
    return ()
