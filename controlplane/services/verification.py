# What is shown after a load: files, times, read-back, recorded inferences, every instance.
from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from controlplane.domain.catalog import Golden, GoldenMode, Version
from controlplane.domain.converge import Desired, Observed
from controlplane.domain.environments import Proof, ProofStatus
from controlplane.domain.golden import (
    MOST_DRAWN,
    GoldenCase,
    GoldenOutcome,
    GoldenVerdict,
    distinguishes,
    drawn,
    judge,
    together,
)
from controlplane.errors import InferenceFailed
from controlplane.services.ports import GoldenReader, Prober, Target

_STATUS = {
    GoldenOutcome.PASSED: ProofStatus.SHOWN,
    GoldenOutcome.FAILED: ProofStatus.FAILED,
    GoldenOutcome.INCONCLUSIVE: ProofStatus.INCONCLUSIVE,
}


_DRAWS = 8
_MANY = 2**14
"""Orders of the rows that there must be: a cache of a few hundred of them knows eight draws by a chance below 1e-13."""


class LiveModel:
    """One model on one server, the config that it was loaded with, and the recorded inferences to ask it: each read once."""

    def __init__(self, target: Target, model: str, observed: Observed, read: GoldenReader) -> None:
        self.target = target
        self.name = model
        self.config = observed.reported or {}
        self._read = cache(read)

    @property
    def response_cache(self) -> bool:
        described = self.config.get("response_cache")
        return isinstance(described, dict) and bool(described.get("enable"))

    def cases(self, golden: Golden) -> Sequence[GoldenCase]:
        return self._read(golden)


class Verifier:
    """Asks a live server; writes nothing. `seconds` is how long one answer may take."""

    def __init__(self, read_golden: GoldenReader, probe: Prober, *, seconds: float) -> None:
        self._read_golden = read_golden
        self._probe = probe
        self._seconds = seconds

    def live(self, target: Target, model: str, observed: Observed) -> LiveModel:
        return LiveModel(target, model, observed, self._read_golden)

    def verify(
        self,
        target: Target,
        model: str,
        *,
        desired: Desired,
        observed: Observed,
        versions: Sequence[Version],
        before: Sequence[Version],
    ) -> tuple[Proof, ...]:
        """Every proof of one server, in the order in which they build on each other.

        `observed` is what convergence ended with; `versions` are those that serve now and `before` those that served
        until now. Raises ServerUnreachable and the like; an answer that is wrong is a FAILED proof, not an error.
        """
        if desired.config is None:
            return (Proof("absent", ProofStatus.SHOWN, "no files and no version served"),)
        proofs = [
            Proof("files", ProofStatus.SHOWN, _files(desired)),
            Proof("load", ProofStatus.SHOWN, f"loaded after the newest file time ({observed.files.newest_ns} ns)"),
            Proof("config", ProofStatus.SHOWN, "the loaded config is the one that was written, field by field"),
        ]
        live = self.live(target, model, observed)
        for version in versions:
            proofs += self._version(live, version, before)
        return tuple(proofs)

    def answers(self, live: LiveModel, version: Version) -> Proof:
        """Whether one version answers its recorded inferences."""
        name = f"answers of version {version.number}"
        golden = version.inspection.golden
        if golden is None:
            return Proof(name, ProofStatus.SKIPPED, "digest only: no recorded inferences")
        cases = live.cases(golden)
        server, cached = live.target.server, live.response_cache
        hits = server.cache_hits(live.name, version.number) if cached else 0
        wrong = ""
        for index, case in enumerate(cases):
            try:
                verdict = self._ask(live, version, case)
            except InferenceFailed as error:
                return Proof(name, ProofStatus.FAILED, f"case {index}: {error.message}")
            if verdict.outcome is GoldenOutcome.INCONCLUSIVE:
                return Proof(name, ProofStatus.INCONCLUSIVE, f"case {index}: {verdict.message}")
            if verdict.outcome is GoldenOutcome.FAILED:
                wrong = f"case {index}: {verdict.message}"
                break
        if cached and server.cache_hits(live.name, version.number) != hits:
            return self._past_cache(live, version, cases, wrong)
        if wrong:
            return Proof(name, ProofStatus.FAILED, wrong)
        return Proof(name, ProofStatus.SHOWN, f"{len(cases)} recorded cases agree ({golden.mode.value})")

    def _past_cache(self, live: LiveModel, version: Version, cases: Sequence[GoldenCase], wrong: str) -> Proof:
        """Triton's response cache outlives a reload, and what it answers was not computed by what is loaded. Rows in another
        order are another request to it: recorded rows, drawn anew, must have the answers that were recorded with them.
        Its counter does not decide, for clients move it too; that so many draws were all known to it is out of the question.
        `wrong` is how the answers to the recorded requests themselves differ."""
        name = f"answers of version {version.number}"
        most = live.config.get("max_batch_size", 0)
        assert isinstance(most, int)
        pool = together(cases) if version.inspection.signature is not None else None
        if pool is None or pool.rows < 2 or pool.rows ** min(most, MOST_DRAWN) < _MANY:
            seen = wrong or f"{len(cases)} cases agree"
            return Proof(name, ProofStatus.INCONCLUSIVE, f"{seen}, but the response cache answered for the model")
        for _ in range(_DRAWS):
            try:
                verdict = self._ask(live, version, drawn(pool, most))
            except InferenceFailed as error:
                return Proof(name, ProofStatus.FAILED, f"recorded rows in another order: {error.message}")
            if verdict.outcome is not GoldenOutcome.PASSED:
                return Proof(name, _STATUS[verdict.outcome], f"recorded rows in another order: {verdict.message}")
        if wrong:
            seen = (
                f"what is loaded answers as recorded, but the response cache answers for bytes that are gone ({wrong})"
            )
            return Proof(name, ProofStatus.INCONCLUSIVE, f"{seen}: restart the server, which empties it, then retry")
        seen = f"{_DRAWS} draws of recorded rows agree, past the response cache, which answered the recorded requests"
        return Proof(name, ProofStatus.SHOWN, f"{seen}; what else it holds from before is not known")

    def instances(self, live: LiveModel, version: Version) -> Proof:
        """Whether every instance of a version answers."""
        name = f"instances of version {version.number}"
        golden = version.inspection.golden
        if not live.config or golden is None or golden.mode is GoldenMode.SEQUENCE:
            return Proof(name, ProofStatus.SKIPPED, "no recorded input to probe instances with")
        cases = live.cases(golden)
        batches = live.config.get("max_batch_size", 0) and "sequence_batching" not in live.config
        pool = together(cases) if batches else None
        inputs = cases[0].inputs if pool is None else pool.inputs
        return self._probe(
            live.target.server, live.name, version.number, config=live.config, inputs=inputs, seconds=self._seconds
        )

    def _version(self, live: LiveModel, version: Version, before: Sequence[Version]) -> list[Proof]:
        answers = self.answers(live, version)
        proofs = [answers]
        if answers.status is not ProofStatus.FAILED:
            proofs.append(self.instances(live, version))
        if answers.status is ProofStatus.SHOWN:
            proofs += [self._told_apart(live, version, old) for old in before if old.artifact != version.artifact]
        return proofs

    def _told_apart(self, live: LiveModel, version: Version, old: Version) -> Proof:
        """Whether the inputs that were asked tell this version from one that served before."""
        name = f"version {version.number} told from version {old.number}"
        golden, old_golden = version.inspection.golden, old.inspection.golden
        if golden is None or old_golden is None:
            return Proof(name, ProofStatus.SKIPPED, "digest only: no recorded inferences")
        cases = distinguishes((old_golden, live.cases(old_golden)), (golden, live.cases(golden)))
        if not cases:
            return Proof(name, ProofStatus.SKIPPED, "both give the same answers to the recorded inputs")
        return Proof(name, ProofStatus.SHOWN, f"{len(cases)} recorded inputs have different answers")

    def _ask(self, live: LiveModel, version: Version, case: GoldenCase) -> GoldenVerdict:
        golden = version.inspection.golden
        assert golden is not None
        outputs = live.target.server.infer(
            live.name,
            case.inputs,
            version=version.number,
            outputs=tuple(case.outputs),
            deadline_seconds=self._seconds,
        )
        return judge(golden, case, outputs)


def _files(desired: Desired) -> str:
    parts = [f"version {n} is {manifest.digest}" for n, manifest in sorted(desired.serving.items())]
    parts += [f"{entry.path} is {entry.sha256}" for entry in desired.beside.files]
    return "hashed in the repository: " + ", ".join(parts)
