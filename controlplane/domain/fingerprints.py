# The environment that a trial was measured in, and whether what was measured there counts here. Pure.
"""Of two fingerprints it is asked what differs, in words, and whether they are of one *class*: whether numbers from one may be
held against numbers from the other. What moves by itself (steal time, present clocks, kernel patches) differs without leaving
the class; hardware, limits and what serves do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from controlplane.domain.canonical import Json, JsonObject, digest
from controlplane.errors import InvalidInput

_GIB = 2**30
_MUST_BE_KNOWN = ("cpu_model", "threads", "usable_millicpus", "memory_gib", "gpus", "triton_version")
"""Without these nobody can say that two environments are of one class. The others may be missing for good on both sides: a virtual
machine has no governor, a server outside a container no image."""

Names = tuple[tuple[str, str], ...]
"""Names and versions, ordered by name."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """`clock_mhz` and `clock_memory_mhz` are as of the reading, the others what the board may reach."""

    model: str
    driver: str | None = None
    memory_mib: int | None = None
    clock_mhz: int | None = None
    clock_memory_mhz: int | None = None
    clock_most_mhz: int | None = None
    clock_memory_most_mhz: int | None = None
    power_limit_mw: int | None = None
    mig: str | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """A machine. None is what it does not tell; `gpus` is empty where it tells that there are none.

    `threads` are logical processors, `usable_millicpus` those left by affinity and the container's quota, in thousandths.
    `steal_ppm` is the share of processor time that the hypervisor took away while the trial was measured, in millionths;
    `kept_awake`: the processors were never idle meanwhile, which spares a virtual one the way back to its place.
    """

    cpu_model: str | None
    cores: int | None
    threads: int | None
    usable_millicpus: int | None
    governor: str | None
    memory_bytes: int | None
    gpus: tuple[Gpu, ...] | None
    kernel: str | None
    steal_ppm: int | None = None
    kept_awake: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers. `build` tells builds of one version apart (the digest of a binary, a container's build number). `backends`
    are the versions that compute: onnxruntime, its Python, its numpy; None where the server's host does not tell."""

    triton_version: str | None
    build: str | None = None
    backends: Names | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`host` is the machine of the server, None when it could not be looked at; `local`: the load came from the same one.
    `packages`, `control_plane` and `commit` are those of the measuring side; a commit with changes on top ends in `-dirty`."""

    host: Host | None
    serving: Serving
    local: bool
    packages: Names
    control_plane: str
    commit: str | None

    def to_json(self) -> JsonObject:
        host, backends = self.host, self.serving.backends
        gpus = None if host is None or host.gpus is None else [asdict(gpu) for gpu in host.gpus]
        return {
            "host": None if host is None else {**_told(host), "gpus": gpus},
            "serving": {**asdict(self.serving), "backends": None if backends is None else dict(backends)},
            "local": self.local,
            "packages": dict(self.packages),
            "control_plane": self.control_plane,
            "commit": self.commit,
        }

    @property
    def digest(self) -> str:
        return digest(self.to_json())

    @classmethod
    def from_json(cls, tree: Json) -> Fingerprint:
        """Of what `to_json` made. Raises InvalidInput."""
        try:
            top = _object(tree, cls)
            serving = _object(top["serving"], Serving)
            host = None if top["host"] is None else _host(top["host"])
            return cls(
                host,
                Serving(
                    _text(serving["triton_version"]),
                    _text(serving["build"]),
                    None if serving["backends"] is None else _names(serving["backends"]),
                    _text(serving["image"]),
                ),
                local=_flag(top["local"]),
                packages=_names(top["packages"]),
                control_plane=_text(top["control_plane"]) or "",
                commit=_text(top["commit"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"this is not a fingerprint: {str(error)[:200]}", hint="take one from a measurement or a capsule"
            ) from None


def class_of(fingerprint: Fingerprint) -> JsonObject:
    """What must be equal for evidence to count elsewhere. Memory in whole GiB, as firmware keeps a little; of a GPU's driver
    the branch; present clocks, steal time, kernel, the measuring side's packages and version are left out."""
    host, serving = fingerprint.host or _UNKNOWN, fingerprint.serving
    gpus: Json = None
    if host.gpus is not None:
        gpus = [
            {
                "model": gpu.model,
                "driver": gpu.driver and gpu.driver.partition(".")[0],
                "memory_mib": gpu.memory_mib,
                "clock_most_mhz": gpu.clock_most_mhz,
                "clock_memory_most_mhz": gpu.clock_memory_most_mhz,
                "power_limit_mw": gpu.power_limit_mw,
                "mig": gpu.mig,
            }
            for gpu in host.gpus
        ]
    return {
        "cpu_model": host.cpu_model,
        "cores": host.cores,
        "threads": host.threads,
        "usable_millicpus": host.usable_millicpus,
        "governor": host.governor,
        "kept_awake": host.kept_awake,
        "memory_gib": None if host.memory_bytes is None else round(host.memory_bytes / _GIB),
        "gpus": gpus,
        "triton_version": serving.triton_version,
        "build": serving.build,
        "backends": None if serving.backends is None else dict(serving.backends),
        "image": serving.image,
        "local": fingerprint.local,
    }


def same_class(one: Fingerprint, other: Fingerprint) -> bool | None:
    """None where too little is known to tell: something that must be known is not, or only one side tells it. What is known to
    differ decides before that."""
    first, second = class_of(one), class_of(other)
    return _all(_same(name, first[name], second[name]) for name in first)


def differences(one: Fingerprint, other: Fingerprint) -> tuple[str, ...]:
    """In words, all that is not equal, `one` first; each says whether it leaves the class, or that this cannot be told. What
    neither tells and the class needs is named too."""
    first, second = (class_of(fingerprint) | _leaves(fingerprint, of_class=True) for fingerprint in (one, other))
    mine, theirs = _leaves(one), _leaves(other)
    lines = []
    for name in dict.fromkeys((*mine, *theirs)):
        here, there, of_class = mine.get(name), theirs.get(name), "memory_gib" if name == "memory_bytes" else name
        word = _WORDS.get(name, name)
        if here == there:
            if here is None and of_class in _MUST_BE_KNOWN:
                lines.append(f"{word}: not known on either side (so nobody can tell whether the class is the same)")
            continue
        same: bool | None = True
        if of_class in first or of_class in second:
            same = _same(of_class, first.get(of_class), second.get(of_class))
        meaning = {True: "", False: " (another class)", None: " (so nobody can tell whether the class is the same)"}
        lines.append(f"{word}: {_said(here)} here, {_said(there)} there{meaning[same]}")
    return tuple(lines)


def _same(name: str, one: Json, other: Json) -> bool | None:
    if one is None and other is None:
        return None if name in _MUST_BE_KNOWN else True
    if one is None or other is None:
        return None
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _all(_same("", one.get(key), other.get(key)) for key in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and _all(_same("", *pair) for pair in zip(one, other, strict=True))
    return one == other


def _all(parts: Iterable[bool | None]) -> bool | None:
    found = set(parts)
    return False if False in found else None if None in found else True


_UNKNOWN = Host(None, None, None, None, None, None, None, None)
_WORDS = {
    "cpu_model": "processor",
    "threads": "logical processors",
    "usable_millicpus": "usable processors, in thousandths",
    "governor": "frequency governor",
    "memory_bytes": "memory in bytes",
    "gpus": "GPUs",
    "kept_awake": "processors kept awake",
    "steal_ppm": "stolen processor time in millionths",
    "triton_version": "Triton",
    "build": "build of Triton",
    "image": "container image",
    "local": "load from the server's own host",
    "control_plane": "control plane",
}


def _leaves(fingerprint: Fingerprint, *, of_class: bool = False) -> dict[str, Json]:
    """A backend and a package by its name, GPUs as a whole; with `of_class` the backends alone."""
    backends: dict[str, Json] = {f"backend {name}": version for name, version in fingerprint.serving.backends or ()}
    if of_class:
        return backends
    whole = replace(fingerprint, host=fingerprint.host or _UNKNOWN).to_json()
    host, serving = whole["host"], whole["serving"]
    assert isinstance(host, Mapping)
    assert isinstance(serving, Mapping)
    own = {name: value for name, value in {"kept_awake": False, **host, **serving}.items() if name != "backends"}
    return {
        **own,
        **{name: whole[name] for name in ("local", "control_plane", "commit")},
        **backends,
        **{f"package {name}": version for name, version in fingerprint.packages},
    }


def _said(value: Json) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " and ".join(_gpu_words(gpu) for gpu in value) or "none"
    return str(value)


def _gpu_words(gpu: Json) -> str:
    assert isinstance(gpu, Mapping)
    known = [f"{name} {value}" for name, value in gpu.items() if value is not None and name != "model"]
    return f"{gpu['model']} ({', '.join(known)})" if known else str(gpu["model"])


def _told(host: Host) -> dict[str, Json]:
    """Without what was not asked for once, where it does not hold: older fingerprints keep their digests."""
    told: dict[str, Json] = asdict(host)
    if not host.kept_awake:
        del told["kept_awake"]
    return told


def _host(tree: Json) -> Host:
    found = _object({"kept_awake": False, **tree} if isinstance(tree, Mapping) else tree, Host)
    gpus = found["gpus"]
    if gpus is not None and (isinstance(gpus, str) or not isinstance(gpus, Sequence)):
        raise TypeError("gpus is not a list")
    return Host(
        _text(found["cpu_model"]),
        _count(found["cores"]),
        _count(found["threads"]),
        _count(found["usable_millicpus"]),
        _text(found["governor"]),
        _count(found["memory_bytes"]),
        None if gpus is None else tuple(map(_gpu, gpus)),
        _text(found["kernel"]),
        _count(found["steal_ppm"]),
        _flag(found["kept_awake"]),
    )


def _gpu(tree: Json) -> Gpu:
    found = _object(tree, Gpu)
    return Gpu(
        _text(found["model"]) or "",
        _text(found["driver"]),
        _count(found["memory_mib"]),
        _count(found["clock_mhz"]),
        _count(found["clock_memory_mhz"]),
        _count(found["clock_most_mhz"]),
        _count(found["clock_memory_most_mhz"]),
        _count(found["power_limit_mw"]),
        _text(found["mig"]),
    )


def _object(tree: Json, kind: type) -> Mapping[str, Json]:
    if not isinstance(tree, Mapping):
        raise TypeError(f"{str(tree)[:60]!r} is not an object")
    wanted = {field.name for field in fields(kind)}
    if tree.keys() != wanted:
        raise ValueError(f"{kind.__name__} has {sorted(tree)[:20]}, not {sorted(wanted)}")
    return tree


def _names(tree: Json) -> Names:
    if not isinstance(tree, Mapping):
        raise TypeError(f"{str(tree)[:60]!r} is not an object")
    return tuple(sorted((name, _text(version) or "") for name, version in tree.items()))


def _text(value: Json) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{str(value)[:60]!r} is not text")
    return value


def _count(value: Json) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise TypeError(f"{str(value)[:60]!r} is not a count")
    return value


def _flag(value: Json) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{str(value)[:60]!r} is not true or false")
    return value
