# From a wish to a plan: the desired revision, its difference from the base, what it costs, its gates.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane.domain.artifacts import Manifest, check_beside
from controlplane.domain.blockers import ROLLED_BACK
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Version
from controlplane.domain.changes import ChangeKind, ChangeRequest, GateResult, Plan
from controlplane.domain.config_diff import FieldChange, Impact, ReloadClass, content_diff, impact
from controlplane.domain.config_findings import Finding, Severity
from controlplane.domain.config_lint import lint, refuse
from controlplane.domain.environments import NOTHING, Deployment, RevisionContent, ServerSpec, VersionRef
from controlplane.domain.evidence import Evidence
from controlplane.domain.objectives import check_text
from controlplane.domain.policies import Policy
from controlplane.domain.servers import HostFacts
from controlplane.errors import Conflict, InvalidInput, NotFound
from controlplane.services.deployments import base_content
from controlplane.services.hardware import Hardware, of_server
from controlplane.services.latency import exempt, planned
from controlplane.services.ports import ConfigCodec, ConfigGenerator
from controlplane.services.rollback_target import how_to_deploy, rollback_target
from controlplane.storage.unit_of_work import Storage, UnitOfWork


@dataclass(frozen=True, slots=True)
class Proposal:
    """A wish. What is not said stays as it is in the current revision.

    `config` is a whole tree, `generate` asks for one made from the highest version; `sets` are (path, text) and `unsets`
    paths, applied after it, in order. `beside` are all files that lie beside the config. `from_environment` takes another
    environment's current revision as it stands.
    `revision` is the target of a rollback, None for the last good one. `adopted_from` is the directory that an adoption
    describes, empty for any other change.
    """

    environment: str
    model: str
    reason: str
    hypothesis: str = ""
    expected_effect: str = ""
    versions: tuple[int, ...] | None = None
    config: JsonObject | None = None
    generate: bool = False
    sets: tuple[tuple[str, str], ...] = ()
    unsets: tuple[str, ...] = ()
    beside: Manifest | None = None
    undeploy: bool = False
    from_environment: str | None = None
    reconcile: bool = False
    acknowledge: tuple[str, ...] = ()
    rollback: bool = False
    revision: int | None = None
    adopted_from: str = ""
    evidence: Evidence | None = None

    def is_of(self, request: ChangeRequest) -> bool:
        """Whether it can be an edit of that request: an edit cannot make a change another."""
        return (self.environment, self.model, self.reconcile, self.rollback) == (
            request.environment,
            request.model,
            request.kind is ChangeKind.RECONCILE,
            request.kind is ChangeKind.ROLLBACK,
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan that has no request yet."""

    kind: ChangeKind
    reason: str
    base_revision: int
    base: RevisionContent
    desired: RevisionContent
    impact: Impact
    policy: Policy
    diff: tuple[FieldChange, ...]
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
    acknowledged: tuple[str, ...] = ()
    evidence: Evidence | None = None

    def plan(
        self,
        change: int,
        number: int,
        made_by: str,
        now: datetime,
        *,
        asides: tuple[str, ...] = (),
        gates: tuple[GateResult, ...] = (),
    ) -> Plan:
        """`asides` are what is to be known besides, and no part of what is approved; `gates` those of now, beside the draft's."""
        return Plan(
            change=change,
            number=number,
            base_revision=self.base_revision,
            base_digest=self.base.digest,
            desired=self.desired,
            reason=self.reason,
            kind=self.kind,
            reload_class=self.impact.reload_class.value,
            clauses=self.policy.clauses(),
            diff=tuple({"path": c.path, "old": c.old, "new": c.new} for c in self.diff),
            gates=(*self.gates, *gates),
            notes=(*self.notes, *asides),
            made_by=made_by,
            made_at=now,
            acknowledged=self.acknowledged,
            evidence=self.evidence,
        )


@dataclass(frozen=True, slots=True)
class _Base:
    """What a draft stands on, read in one transaction."""

    model: str
    policy: Policy
    hardware: Hardware | None
    """Of the server; None where not even this host's is known."""
    deployment: Deployment | None
    content: RevisionContent
    versions: dict[int, Version]
    other: RevisionContent | None
    target: RevisionContent | None

    @property
    def embedded(self) -> bool:
        """Whether the server is ours, on this host."""
        return self.hardware is not None and self.hardware.embedded


class Planner:
    """Reads, computes, writes nothing."""

    def __init__(self, storage: Storage, codec: ConfigCodec, generate: ConfigGenerator, host: HostFacts | None) -> None:
        self._storage = storage
        self._codec = codec
        self._generate = generate
        self._host = host

    def draft(self, wish: Proposal) -> Draft:
        """Raises ConfigInvalid with every finding when Triton would refuse the result, and Conflict when nothing would
        change."""
        if not wish.reason.strip():
            raise InvalidInput("a change needs a reason", hint="--reason 'what for'")
        check_text(wish.adopted_from, "adopted_from", 2000)
        for word in wish.acknowledge:
            if word != ROLLED_BACK:
                raise InvalidInput(f"{word!r} cannot be acknowledged", hint=f"--acknowledge {ROLLED_BACK}")
        base = self._read(wish)
        if wish.rollback:
            assert base.target is not None
            notes = exempt(base.policy.latency_gates, base.model)
            return self._finish(ChangeKind.ROLLBACK, wish.reason, base, base.target, notes)
        if wish.reconcile:
            return self._finish(ChangeKind.RECONCILE, wish.reason, base, base.content, _mended(base))
        desired, notes = self._desired(wish, base)
        if desired.digest == base.content.digest:
            raise Conflict(
                f"{wish.model!r} in {wish.environment!r} is already like this: nothing would change",
                hint=f"tritonctl deployment show {wish.model} --env {wish.environment}",
            )
        draft = self._finish(ChangeKind.CHANGE, wish.reason, base, desired, notes)
        return replace(draft, acknowledged=tuple(sorted(set(wish.acknowledge))), evidence=wish.evidence)

    def again(self, request: ChangeRequest, plan: Plan, edits: Proposal | None) -> Draft:
        """The plan of the same request on the current base: with edits as if it were asked anew, else the same content."""
        if edits is not None and request.kind is ChangeKind.CHANGE:
            return self.draft(edits)
        reason = edits.reason if edits is not None else request.reason
        base = self._read(Proposal(request.environment, request.model, reason))
        desired = base.content if request.kind is ChangeKind.RECONCILE else plan.desired
        draft = self._finish(request.kind, reason, base, desired, ())
        return replace(draft, acknowledged=plan.acknowledged, evidence=plan.evidence)

    def _read(self, wish: Proposal) -> _Base:
        with self._storage.read() as unit:
            policy, servers = unit.environments.get(wish.environment).policy, existing_servers(unit, wish.environment)
            versions = {v.number: v for v in unit.catalog.versions(wish.model)}
            deployment = unit.environments.deployment(wish.environment, wish.model)
            content = NOTHING if deployment is None else base_content(unit, deployment)
            if deployment is None and (wish.rollback or wish.reconcile or wish.undeploy):
                raise NotFound(
                    f"{wish.model!r} was never deployed in {wish.environment!r}",
                    hint=how_to_deploy(wish.environment, wish.model),
                )
            target = rollback_target(unit, deployment, content, wish.revision) if wish.rollback and deployment else None
            return _Base(
                model=wish.model,
                policy=policy,
                hardware=None if self._host is None else of_server(servers, self._host),
                deployment=deployment,
                content=content,
                versions=versions,
                other=_other(unit, wish),
                target=target,
            )

    def _desired(self, wish: Proposal, base: _Base) -> tuple[RevisionContent, tuple[str, ...]]:
        if wish.undeploy:
            return NOTHING, ()
        start = base.other or base.content
        notes: list[str] = []
        refs = start.versions
        if wish.versions is not None:
            refs = tuple(self._ref(base, number, wish) for number in sorted(set(wish.versions)))
            refs, warm = _kept_warm(base, refs)
            notes += warm
        if not refs:
            raise InvalidInput("no version is named", hint=f"--version N; see: tritonctl model versions {wish.model}")
        config = self._config(wish, base, start, refs, notes)
        config = edited(self._codec, config, wish.sets, wish.unsets)
        beside = start.beside if wish.beside is None else check_beside(wish.beside)
        return RevisionContent(refs, self._codec.check(config), beside), tuple(notes)

    def _config(
        self, wish: Proposal, base: _Base, start: RevisionContent, refs: Sequence[VersionRef], notes: list[str]
    ) -> JsonObject:
        highest = base.versions[refs[-1].number]
        if wish.config is not None:
            config = dict(self._codec.check(wish.config))
            if config.pop("version_policy", None) is not None:
                notes.append("version_policy was left out: the versions of the revision decide it")
            return config
        if not wish.generate and start.config is not None:
            return start.config
        if highest.config is not None:
            notes.append(f"the config is the one that version {highest.number} was registered with")
            return highest.config
        hardware = "" if base.hardware is None else f", {base.hardware.generating}"
        notes.append(f"the config was generated for version {highest.number}{hardware}")
        return self._generate(highest, embedded=base.embedded)

    def _ref(self, base: _Base, number: int, wish: Proposal) -> VersionRef:
        version = base.versions.get(number)
        if version is None:
            known = ", ".join(str(n) for n in sorted(base.versions)) or "none"
            raise NotFound(
                f"{wish.model!r} has no version {number} (it has {known})",
                hint=f"tritonctl model register {wish.model} FILE --version {number}",
            )
        return VersionRef(number, version.artifact)

    def _finish(
        self, kind: ChangeKind, reason: str, base: _Base, desired: RevisionContent, notes: tuple[str, ...]
    ) -> Draft:
        numbers = {*desired.numbers, *base.content.numbers}
        interfaces = {
            n: v.inspection.signature.interface()
            for n, v in base.versions.items()
            if n in numbers and v.inspection.signature is not None
        }
        found = impact(base.content, desired, interfaces)
        if kind is ChangeKind.RECONCILE:
            found = Impact(ReloadClass.RELOAD, ("the accepted content is put back and loaded anew",))
        findings = self._findings(base, desired) if kind is ChangeKind.CHANGE else ()
        refuse(findings)
        if base.content.config is not None and found.reload_class in (ReloadClass.RELOAD, ReloadClass.BREAKS_CLIENTS):
            notes = (*notes, self._headroom(base, desired)[1])
        regrets = tuple(f"{f.path}: {f.message}" for f in findings if f.severity is Severity.REGRET)
        return Draft(
            kind=kind,
            reason=reason,
            base_revision=0 if base.deployment is None else base.deployment.revision,
            base=base.content,
            desired=desired,
            impact=found,
            policy=base.policy,
            diff=content_diff(base.content, desired),
            gates=self._gates(base, desired, found, regrets) if kind is ChangeKind.CHANGE else (),
            notes=(*notes, *found.reasons, *regrets),
        )

    def _findings(self, base: _Base, desired: RevisionContent) -> tuple[Finding, ...]:
        if desired.config is None:
            return ()
        found = {number: base.versions[number].inspection.signature for number in desired.numbers}
        return lint(
            desired.config,
            model=base.model,
            signatures={number: signature for number, signature in found.items() if signature is not None},
            host=base.hardware.host if base.hardware is not None else None,
            embedded=base.embedded,
            beside=[entry.path for entry in desired.beside.files],
        )

    def _gates(
        self, base: _Base, desired: RevisionContent, found: Impact, regrets: tuple[str, ...]
    ) -> tuple[GateResult, ...]:
        results = []
        for name in base.policy.gates:
            outcome, message = "passed", "nothing found"
            if name == "no_regrets" and regrets:
                outcome, message = "failed", "; ".join(regrets)
            if name == "compatible" and found.reload_class is ReloadClass.BREAKS_CLIENTS:
                outcome, message = "failed", "; ".join(found.reasons)
            if name == "golden":
                without = [n for n in desired.numbers if base.versions[n].inspection.golden is None]
                if without:
                    outcome, message = "failed", f"version {without[0]} has no recorded inferences"
            if name == "headroom":
                outcome, message = self._headroom(base, desired)
            results.append(GateResult(name, outcome, message))
        if desired.config is not None and found.reload_class is not ReloadClass.NONE:
            results += planned(base.policy.latency_gates, base.model, base.versions[desired.numbers[-1]])
        return tuple(results)

    def _headroom(self, base: _Base, desired: RevisionContent) -> tuple[str, str]:
        """Weights of old and new side by side against half of the host's memory: activations need the rest."""
        if self._host is None or not base.embedded:
            return "inconclusive", "the memory of the server's host is not known"
        numbers = [*base.content.numbers, *desired.numbers]
        size = sum(base.versions[number].manifest.size for number in numbers)
        room = self._host.memory_bytes // 2
        words = f"old and new weigh {_size(size)} side by side; half of the host's memory is {_size(room)}"
        return ("passed" if size <= room else "failed"), words


def existing_servers(unit: UnitOfWork, environment: str) -> tuple[ServerSpec, ...]:
    """At least one. Raises NotFound."""
    servers = unit.environments.servers(environment)
    if not servers:
        unit.environments.get(environment)
        raise NotFound(
            f"environment {environment!r} has no server",
            hint=f"tritonctl server add NAME --env {environment} --address … --repository …",
        )
    return tuple(servers)


def edited(
    codec: ConfigCodec, config: JsonObject, sets: Sequence[tuple[str, str]], unsets: Sequence[str]
) -> JsonObject:
    """The config with `sets` and then `unsets` applied, in order. Raises ConfigInvalid and ConfigPathInvalid, always with
    what to write instead."""
    for path, text in sets:
        try:
            config = codec.set(config, path, text)
        except InvalidInput as error:
            if error.hint is None:
                error.hint = f"write it as: --set '{path}=VALUE', with a value of that kind"
            raise
    for path in unsets:
        config = codec.unset(config, path)
    return config


def _size(count: int) -> str:
    """With three digits: what is small is not nothing."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.3g} {units[0]}" if value < 1000 else f"{value:.0f} {units[0]}"


def _mended(base: _Base) -> tuple[str, ...]:
    drift = base.deployment.drift if base.deployment is not None else ()
    return tuple(f"mends: {text}" for text in drift) or ("no drift is known",)


def _kept_warm(base: _Base, refs: tuple[VersionRef, ...]) -> tuple[tuple[VersionRef, ...], list[str]]:
    """Policy `keep_warm`: the version that served until now stays loaded below a single new, higher one."""
    if not base.policy.keep_warm or len(refs) != 1 or not base.content.versions:
        return refs, []
    previous = base.content.versions[-1]
    if previous.number >= refs[0].number:
        return refs, []
    return (previous, *refs), [
        f"version {previous.number} stays loaded (keep_warm): rolling back drops {refs[0].number}"
    ]


def _other(unit: UnitOfWork, wish: Proposal) -> RevisionContent | None:
    if wish.from_environment is None:
        return None
    deployment = unit.environments.deployment(wish.from_environment, wish.model)
    if deployment is None or deployment.revision == 0:
        raise NotFound(
            f"{wish.model!r} is not deployed in {wish.from_environment!r}",
            hint=f"tritonctl deployment list --env {wish.from_environment}",
        )
    return base_content(unit, deployment)
