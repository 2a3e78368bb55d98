# From a wish to a sweep that could start: the subject, its space and candidates, the load, and the plan; or why it cannot be.
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from controlplane.domain.artifacts import NO_FILES, Manifest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import GoldenMode, Objective, Version
from controlplane.domain.ensembles import members
from controlplane.domain.environments import RevisionContent
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_candidates import Candidate, Candidates, Refusal, candidates
from controlplane.domain.sweep_dimensions import SHORT, Dimension, place
from controlplane.domain.sweep_figures import Bound, bound_of
from controlplane.domain.sweep_plan import LoadChoice, groups, load_of, plan
from controlplane.domain.sweep_rounds import Requests
from controlplane.domain.sweep_space import Space, Subject, space_of
from controlplane.domain.sweep_spec import Method, Shape, SweepSpec, spec_from_json
from controlplane.domain.sweep_values import condition
from controlplane.domain.sweeps import Sweep, SweepState, Trial
from controlplane.errors import ConfigPathInvalid, NotFound, SweepInvalid
from controlplane.services.configs import highest
from controlplane.services.deployments import base_content
from controlplane.services.ports import ConfigCodec, ConfigGenerator
from controlplane.storage.unit_of_work import Storage, UnitOfWork

EMBEDDED = "embedded"
_BENCH = re.compile(r"(?:dask(?:\+tls)?://)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]{1,253}):[0-9]{1,5}")
_HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})
_REASONS_SAID = 6


@dataclass(frozen=True, slots=True)
class Draft:
    """A sweep that nobody started: its id is 0."""

    sweep: Sweep
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """What rounds are made of, read of a sweep's rows and the catalog; the versions' bytes never change."""

    subject: Subject
    space: Space
    manifests: Mapping[int, Manifest]
    requests: Mapping[int, Requests]
    beside: Manifest = NO_FILES
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Base:
    """What the spec is about, read in one transaction."""

    versions: dict[int, Version]
    objectives: tuple[Objective, ...]
    revision: int | None = None
    content: RevisionContent = field(default_factory=lambda: RevisionContent((), None))


class SweepDrafts:
    """Reads, computes, writes nothing. `memory_bytes` is what candidates may take together on the bench."""

    def __init__(
        self,
        storage: Storage,
        codec: ConfigCodec,
        generate: ConfigGenerator,
        host: HostFacts,
        *,
        memory_bytes: int,
        benches: Collection[str] = (),
    ) -> None:
        self._storage = storage
        self._benches = frozenset(benches)
        self.codec = codec
        self._generate = generate
        self._host = host
        self._memory_bytes = memory_bytes

    def draft(
        self, spec: SweepSpec, *, environment: str | None, bench: str | None, started_by: str, now: datetime
    ) -> Draft:
        """Raises SweepInvalid with the reason where nothing can be measured, and NotFound."""
        bench = check_bench(bench or EMBEDDED, self._benches)
        _check_places(spec, self.codec)
        base = self._read(spec, environment, bench)
        bases = {number: self._config(base, version, bench) for number, version in base.versions.items()}
        _check(spec, base, bases)
        subject = Subject(
            model=spec.model,
            bases=bases,
            signatures={n: s for n, v in base.versions.items() if (s := v.inspection.signature) is not None},
            host=self._host,
            embedded=is_embedded(bench),
            objectives=base.objectives,
            sizes={number: version.manifest.size for number, version in base.versions.items()},
        )
        choice = load_of(spec.load, base.objectives)
        _check_load(choice, bound_of(base.objectives), spec)
        space = space_of(spec, subject)
        rows = choice.load.rows
        found = candidates(space, subject, self.codec, seed=spec.search.seed, most=spec.search.candidates, rows=rows)
        there, tried = len(found.tried) + found.left_out, found.tried
        _check_candidates(spec, space, found)
        beside = len(groups(tried, subject.sizes, self._memory_bytes)[0])
        made = plan(spec.search, choice, there, beside=beside, objectives=base.objectives)
        made = replace(made, notes=(*made.notes, *_unreached(spec, choice)))
        if spec.search.method is Method.OPTUNA:
            tried = tuple(one for one in tried if one.base)
        chosen: tuple[Candidate | Refusal, ...] = (*tried[: made.candidates], *found.refusals)
        trials = tuple(
            trial_of(0, number, one, base.versions[one.version].artifact) for number, one in enumerate(chosen, 1)
        )
        sweep = Sweep(
            id=0,
            model=spec.model,
            spec=spec.to_json(),
            spec_digest=spec.digest,
            space=_space_json(space, subject, found, base.content.beside, self._memory_bytes),
            load={**choice.load.to_json(), "finds_rate": choice.finds_rate, "reason": choice.reason},
            plan=made.to_json(),
            objectives=tuple(dict(asdict(one)) for one in base.objectives),
            state=SweepState.QUEUED,
            started_by=started_by,
            created_at=now,
            environment=environment,
            base_revision=base.revision,
            bench=bench,
            progress={"stage": "queued", "done": 0, "ordered": made.blocks, "seconds_left": made.seconds, "leader": ""},
        )
        return Draft(sweep, trials)

    def _read(self, spec: SweepSpec, environment: str | None, bench: str) -> _Base:
        with self._storage.read() as unit:
            check_apart(unit, bench)
            unit.catalog.model(spec.model)
            objectives = unit.catalog.objectives(spec.model)
            if environment is None:
                numbers = spec.versions or (highest(unit, spec.model),)
                return _Base(unit.catalog.numbered(spec.model, numbers), objectives)
            unit.environments.present(environment)
            deployment = unit.environments.deployment(environment, spec.model)
            content = None if deployment is None else base_content(unit, deployment)
            if deployment is None or content is None or content.config is None:
                raise NotFound(
                    f"{spec.model!r} is not deployed in {environment!r}: there is no config to begin with",
                    hint=f"leave the environment out, and the config is generated: tritonctl sweep run {spec.model}",
                )
            numbers = spec.versions or content.numbers[-1:]  # what requests without a number reach
            return _Base(unit.catalog.numbered(spec.model, numbers), objectives, deployment.revision, content)

    def _config(self, base: _Base, version: Version, bench: str) -> JsonObject:
        """Where the search begins: as deployed, as registered, or generated."""
        config = base.content.config or version.config
        if config is None:
            config = self._generate(version, embedded=is_embedded(bench))
        return self.codec.check({name: config[name] for name in config if name != "version_policy"})


def is_embedded(bench: str) -> bool:
    """Whether candidates run on a Triton such as ours: here, or on the hosts behind a Dask scheduler."""
    return bench == EMBEDDED or "://" in bench


def check_bench(bench: str, known: Collection[str]) -> str:
    """Whoever starts a sweep chooses where the worker connects to: to this host, or to what the settings name. Raises SweepInvalid."""
    if bench == EMBEDDED or bench in known:
        return bench
    match = _BENCH.fullmatch(bench)
    if match is None:
        raise SweepInvalid(
            f"{bench[:200]!r} is no bench",
            hint="use HOST:PORT of a Triton that stands ready for this, or dask://HOST:PORT",
        )
    if match["host"] not in _HERE:
        raise SweepInvalid(
            f"{bench[:200]!r} is not one of the benches that may be measured on",
            hint=f"let an admin name it: TRITONCTL_SWEEPS__BENCHES='[\"{bench[:200]}\"]' for the API and the workers",
        )
    return bench


def check_apart(unit: UnitOfWork, bench: str) -> None:
    """A sweep touches no environment: raises SweepInvalid for the address of one's server."""
    for environment in unit.environments.all():
        for server in unit.environments.servers(environment.name):
            if _place(server.address) == _place(bench):
                raise SweepInvalid(
                    f"{bench} is the server {server.name!r} of the environment {environment.name!r}, which a sweep never touches",
                    hint="leave the bench out, or name a Triton that serves nobody",
                )


def _place(address: str) -> str:
    host, _, port = address.rpartition("/")[2].rpartition(":")
    return f"{'localhost' if host in _HERE else host.lower()}:{port.lstrip('0')}"


def material(unit: UnitOfWork, sweep: Sweep) -> Material:
    """Of a sweep that was started. Raises NotFound."""
    space = sweep.space
    numbers = [int(str(one)) for one in _items(space["versions"])]
    versions = unit.catalog.numbered(sweep.model, numbers)
    host = _object(space["host"])
    bases = _object(space["bases"])
    subject = Subject(
        model=sweep.model,
        bases={number: dict(_object(bases[str(number)])) for number in numbers},
        signatures={n: s for n, v in versions.items() if (s := v.inspection.signature) is not None},
        host=HostFacts(*(int(str(host[name])) for name in ("cpu_cores", "gpus", "memory_bytes"))),
        embedded=is_embedded(sweep.bench),
        objectives=objectives_of(sweep),
        sizes={number: version.manifest.size for number, version in versions.items()},
    )
    dimensions = tuple(
        Dimension(
            str(one["name"]),
            tuple(_items(one["values"])),
            tuple(condition(str(line), str(one["name"])) for line in _items(one["when"])),
        )
        for one in map(_object, _items(space["dimensions"]))
    )
    rows = spec_from_json(sweep.spec).load
    return Material(
        subject,
        Space(tuple(numbers), dimensions),
        {number: version.manifest for number, version in versions.items()},
        {number: _requests(version, 1 if rows is None else rows.rows) for number, version in versions.items()},
        beside_of(space),
        int(str(space["memory_bytes"])),
    )


def objectives_of(sweep: Sweep) -> tuple[Objective, ...]:
    """As they were when it was started."""
    return tuple(Objective(**one) for one in sweep.objectives)  # type: ignore[arg-type]  # as asdict made them


def trial_of(sweep: int, number: int, one: Candidate | Refusal, artifact: str) -> Trial:
    """The row of a candidate, or of one that is refused."""
    why = (
        tuple(f"{f.path}: {f.message}" if f.path else f.message for f in one.findings)
        if isinstance(one, Refusal)
        else ()
    )
    config = one.config if isinstance(one, Candidate) else None
    return Trial(
        sweep=sweep,
        number=number,
        candidate=one.digest,
        version=one.version,
        artifact=artifact,
        config=config,
        config_digest=one.config_digest if isinstance(one, Candidate) else "",
        parameters=dict(one.parameters),
        base=isinstance(one, Candidate) and one.base,
        refused=why,
    )


def _requests(version: Version, rows: int) -> Requests:
    golden = version.inspection.golden
    assert golden is not None  # as was looked at when the sweep was drafted
    return Requests(golden.blob, rows, sequences=golden.mode is GoldenMode.SEQUENCE)


def _check_places(spec: SweepSpec, codec: ConfigCodec) -> None:
    """A place that no config has would be refused with each choice, and a condition on it would never be looked at."""
    for one in spec.space:
        named = [] if one.name in SHORT else [("space", one.name)]
        for what, path in [*named, *((f"space.{one.name}.when", asked.where) for asked in one.when)]:
            try:
                codec.check_path(path)
            except ConfigPathInvalid as error:
                raise SweepInvalid(f"{what}: {error.message}", hint=error.hint) from None


def _check(spec: SweepSpec, base: _Base, bases: Mapping[int, JsonObject]) -> None:
    for number, config in bases.items():
        if "ensemble_scheduling" in config:
            names = ", ".join(sorted(members(config))) or "none"
            raise SweepInvalid(
                f"{spec.model} is an ensemble: it has no instances of its own to tune",
                hint=f"sweep its members: {names}",
            )
        if base.versions[number].inspection.golden is None:
            raise SweepInvalid(
                f"version {number} of {spec.model} has no recorded inferences to send",
                hint=f"register it with some: tritonctl model register {spec.model} FILE --samples FILE.npz",
            )


def _check_load(choice: LoadChoice, bound: Bound | None, spec: SweepSpec) -> None:
    if choice.finds_rate and bound is None:
        raise SweepInvalid(
            f"load.find_rate looks for the highest rate at which a latency holds, and {spec.model} has no such objective",
            hint=f"tritonctl model objective set {spec.model} NAME --metric latency_ms --qualifier p99 --at-most 10",
        )


def _unreached(spec: SweepSpec, choice: LoadChoice) -> list[str]:
    """Batches that the spec names and that calls in flight never fill, where those are all that there ever are."""
    if choice.load.shape is not Shape.CONCURRENCY or choice.finds_rate:
        return []
    most = int(max(choice.load.steps)) * choice.load.rows
    named = [value for one in spec.space if one.name == "max_batch_size" for value in one.values]
    over = [str(value) for value in named if isinstance(value, int) and value > most]
    return [f"max_batch_size {', '.join(over)} is never filled: the load has {most} rows in flight"] if over else []


def _check_candidates(spec: SweepSpec, space: Space, found: Candidates) -> None:
    if len(found.tried) > 1:
        return
    refused = [one["reason"] for one in _refused_because(found)]
    single = {place(one.name) for one in space.dimensions if len(one.values) < 2}
    others = [one for one in space.reasons if one.path in single or one.sentence.startswith("left as it is")]
    why = [*refused, *(f"{one.path}: {one.sentence}" for one in others)] if found.tried else refused
    what = "there is nothing to vary" if found.tried else "no config of its space can be tried"
    raise SweepInvalid(
        f"{spec.model}: {what}. {'; '.join(map(str, why[:_REASONS_SAID]))}",
        hint="name values in the spec: space: {instances: [1, 2]}, or several versions"
        if found.tried
        else next((f.hint for one in found.refusals for f in one.findings), "name other values in the spec's space"),
    )


def _refused_because(found: Candidates) -> list[JsonObject]:
    """Each reason once with how many choices it meets, the most common first."""
    counted = Counter(f"{f.path}: {f.message}" for one in found.refusals for f in one.findings)
    return [{"reason": reason, "choices": count} for reason, count in counted.most_common(_REASONS_SAID)]


def beside_of(space: JsonObject) -> Manifest:
    """The files beside the base config that all candidates of a sweep are measured with."""
    return Manifest.from_json(dict(_object(space["beside"])))


def _space_json(space: Space, subject: Subject, found: Candidates, beside: Manifest, memory_bytes: int) -> JsonObject:
    """All that rounds, and an answer in words, need later."""
    return {
        "versions": list(space.versions),
        "dimensions": [{"name": one.name, **one.to_json()} for one in space.dimensions],
        "reasons": [dict(asdict(one)) for one in space.reasons],
        "choices": str(found.choices),  # beyond 2**53 where 64 dimensions have 64 values each
        "merged": found.merged,
        "left_out": found.left_out,
        "drawn": found.drawn,
        "refused": len(found.refusals),
        "refused_because": _refused_because(found),
        "bases": {str(number): config for number, config in subject.bases.items()},
        "host": {**asdict(subject.host), "memory_bytes": str(subject.host.memory_bytes)},
        "beside": beside.to_json(),
        "memory_bytes": str(memory_bytes),
    }


def _items(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list | tuple) else []


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
