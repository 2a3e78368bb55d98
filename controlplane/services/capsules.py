# Use cases of a capsule: a sweep into a file, and its rounds again as a new sweep.
from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import controlplane
from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.capsule_checks import check_replayable
from controlplane.domain.capsule_names import anonymized
from controlplane.domain.capsules import Capsule, CapsuleVersion, findings, needed
from controlplane.domain.config_findings import Severity
from controlplane.domain.config_lint import lint
from controlplane.domain.names import check_name
from controlplane.domain.sweep_rounds import Verdict
from controlplane.domain.sweeps import ACTIVE, Sweep, SweepState, Trial
from controlplane.errors import CapsuleInvalid, Conflict, ControlPlaneError, NotFound
from controlplane.services.access import AccessService
from controlplane.services.capsule_files import read_capsule, write_capsule
from controlplane.services.ports import ArtifactStore, Clock, ConfigCodec
from controlplane.services.staging import stage
from controlplane.services.sweep_drafts import EMBEDDED, check_apart, check_bench, material
from controlplane.services.sweep_replay import REPLAY
from controlplane.services.sweeps import subjects
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_PREFIX = "capsule-"
SAMPLES = "samples"
"""How the recorded inferences of a user's own samples are marked."""


class CapsuleService:
    def __init__(
        self,
        storage: Storage,
        access: AccessService,
        artifacts: ArtifactStore,
        clock: Clock,
        codec: ConfigCodec,
        *,
        staging: Path,
        benches: Sequence[str] = (),
    ) -> None:
        self._storage = storage
        self._access = access
        self._artifacts = artifacts
        self._clock = clock
        self._codec = codec
        self._staging = staging
        self._benches = benches

    def export(self, principal: Principal, sweep: int, *, artifacts: bool = False, anonymize: bool = False) -> Path:
        """A file that is the caller's to delete. Who may only look may not: it hands out recorded inferences, and, with
        `artifacts`, the versions' bytes. Raises Conflict for a sweep that is not over."""
        self._access.require(principal, Permission.SWEEP_RUN, subjects={"sweep": str(sweep)})
        with self._storage.read() as unit:
            found = unit.sweeps.get(sweep)
            if found.state in ACTIVE:
                raise Conflict(f"sweep {sweep} is {found.state.value}", hint=f"tritonctl sweep watch {sweep}")
            capsule, own_samples = self._capsule(unit, found)
        left_out = anonymize and own_samples and not artifacts
        blobs = needed(capsule) if artifacts else {one.requests.golden: None for one in capsule.versions.values()}
        capsule = replace(capsule, blobs={} if left_out else {sha256: self._size(sha256) for sha256 in blobs})
        if anonymize:
            capsule = anonymized(capsule, samples=left_out)
        path = self._written(capsule)
        with self._storage.write() as unit:
            details: dict[str, Json] = {
                "capsule": capsule.digest,
                "evidence": found.evidence,
                "artifacts": artifacts,
                "anonymized": anonymize,
            }
            unit.audit.append(AuditFact(principal.actor, Action.SWEEP_EXPORTED, subjects(found), details))
        return path

    def replay(
        self, principal: Principal, document: str, *, bench: str | None = None, model: str | None = None
    ) -> Sweep:
        """Queue the rounds of a capsule, whose document and blobs are in the artifact store: nothing is registered. `model` is what
        the new sweep is called by. Its configs and bytes run on the bench, so who replays is who may register. Raises
        CapsuleInvalid, and NotFound for bytes that are neither in the capsule nor in the store."""
        self._access.require(principal, Permission.SWEEP_RUN)
        self._access.require(principal, Permission.MODEL_REGISTER)
        capsule = read_capsule(self._artifacts, document)
        wrong = findings(capsule)
        if wrong:
            raise CapsuleInvalid(
                f"the capsule does not check out: {wrong[0]}", hint="tritonctl sweep replay FILE --verify"
            )
        check_replayable(capsule)
        old, trials = capsule.sweep, self._trials(capsule)
        blobs = sorted(needed(capsule))
        for sha256 in blobs:
            self._size(sha256)
        now = self._clock.now()
        blocks = len(capsule.measurements)
        seconds = _lasts(capsule)
        plan: JsonObject = {
            **old.plan,
            "method": REPLAY,
            "seconds": seconds,
            REPLAY: {
                "capsule": document,
                "of": f"sweep {old.id} of {old.model}",
                "blocks": blocks,
                "blobs": list(blobs),
            },
        }
        fresh = Sweep(
            id=0,
            model=check_name(model or old.model, "model"),
            spec=old.spec,
            spec_digest=old.spec_digest,
            space=old.space,
            load=old.load,
            plan=plan,
            objectives=old.objectives,
            state=SweepState.QUEUED,
            started_by=principal.name,
            created_at=now,
            bench=check_bench(bench or EMBEDDED, self._benches),
            progress={"stage": "queued", "done": 0, "ordered": blocks, "seconds_left": seconds, "leader": ""},
        )
        with self._storage.write() as unit:
            check_apart(unit, fresh.bench)
            sweep = unit.sweeps.add(fresh, trials)
            details: dict[str, Json] = {
                "capsule": capsule.digest,
                "bench": sweep.bench,
                "method": REPLAY,
                "blocks": blocks,
            }
            unit.audit.append(AuditFact(principal.actor, Action.SWEEP_STARTED, subjects(sweep), details))
        return sweep

    def _capsule(self, unit: UnitOfWork, sweep: Sweep) -> tuple[Capsule, bool]:
        """Without blobs; and whether recorded inferences are of a user's own samples."""
        rows = tuple(one.measurement for one in unit.sweeps.measurements(sweep.id))
        if REPLAY in sweep.plan:
            raise Conflict(f"sweep {sweep.id} is a replay itself", hint="the capsule that it replayed has all of it")
        what = material(unit, sweep)
        versions = unit.catalog.numbered(sweep.model, list(what.manifests))
        golden = [version.inspection.golden for version in versions.values()]
        capsule = Capsule(
            sweep=sweep,
            trials=tuple(replace(one, log=_plain(one.log)) for one in unit.sweeps.trials(sweep.id)),
            measurements=rows,
            versions={
                number: CapsuleVersion(manifest, what.requests[number]) for number, manifest in what.manifests.items()
            },
            beside=what.beside,
            fingerprints=unit.sweeps.fingerprints(one.fingerprint for one in rows),
            blobs={},
            exported_at=self._clock.now(),
            control_plane=controlplane.__version__,
        )
        return capsule, any(one is not None and one.source == SAMPLES for one in golden)

    def _written(self, capsule: Capsule) -> Path:
        stage(self._staging, _PREFIX)
        with tempfile.NamedTemporaryFile(dir=self._staging, prefix=_PREFIX, delete=False) as file:
            path = Path(file.name)
            try:
                write_capsule(capsule, self._artifacts, file)
            except BaseException:
                path.unlink()
                raise
        return path

    def _size(self, sha256: str) -> int:
        """Of a blob, whose time is renewed, so that nobody takes it while it is needed."""
        size = self._artifacts.touch(sha256)
        if size is None:
            raise NotFound(
                f"the artifact store holds no blob {sha256}",
                hint="export the capsule with --artifacts, or register the same version first",
            )
        return size

    def _trials(self, capsule: Capsule) -> list[Trial]:
        """Those that were measured, fresh. Their configs are a stranger's: they are held to what everybody's are."""
        ordered = {one.order.candidate for one in capsule.measurements}
        found = []
        for one in capsule.trials:
            if one.candidate not in ordered or one.config is None:
                continue
            where = f"trial {one.number} of the capsule"
            try:
                config = self._codec.check(one.config)
            except ControlPlaneError as error:
                raise CapsuleInvalid(f"the config of {where} cannot be loaded: {error.message}") from None
            if config != one.config:
                raise CapsuleInvalid(f"the config of {where} is not in its normal form")
            beside = [entry.path for entry in capsule.beside.files]
            name = str(config.get("name", capsule.sweep.model))
            refused = [
                finding
                for finding in lint(config, model=name, signatures={}, host=None, beside=beside)
                if finding.severity is Severity.REFUSED
            ]
            if refused:
                raise CapsuleInvalid(f"the config of {where} is refused: {refused[0].path}: {refused[0].message}")
            found.append(replace(one, sweep=0, failure="", log="", fates=()))
        if not found:
            raise CapsuleInvalid("nothing was measured in this capsule: there is nothing to replay")
        return found


def _plain(log: str) -> str:
    """Without what steers a terminal: capsules hold none of that."""
    return "".join(character for character in log if character in "\t\n\r" or unicodedata.category(character) != "Cc")


def _lasts(capsule: Capsule) -> int:
    """About as long as it took there."""
    measured = [one for one in capsule.measurements if one.verdict is not Verdict.NOT_MEASURED]
    return round(sum((one.finished_at - one.started_at).total_seconds() for one in measured))
