# Random changes, rollbacks, crashes and restarts for as long as one likes; after each, the live model must be as recorded.
"""`make soak MINUTES=120`. Seeded: `--seed N` does the same again. Ends with status 1 at the first thing that is not as it should be,
and writes what was done to build/bench/soak.json."""

from __future__ import annotations

import json
import logging
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from controlplane.domain.blockers import ROLLED_BACK
from controlplane.domain.changes import ChangeState
from controlplane.errors import Conflict
from controlplane.services.planning import Proposal
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.install import install as install_runtime
from tests.bench.report import ROOT, fingerprint
from tests.live.installation import ENV, Installation, install
from tests.live.servers import launch

MODELS = ("soak_a", "soak_b", "soak_c")
VERSIONS = 4


class Crashed(Exception):
    """The worker dies here: raised out of an effect, past everything that would clean up."""


class Soak:
    """`factors[model]` is what each version multiplies by; `served` what the last accepted content answers."""

    def __init__(self, at: Installation, chance: random.Random) -> None:
        self.at = at
        self.chance = chance
        self.done: Counter[str] = Counter()
        self.factors: dict[str, dict[int, float]] = {model: {} for model in MODELS}
        for model in MODELS:
            for number in range(1, VERSIONS + 1):
                factor = float(chance.randint(2, 1_000))
                self.at.register(model, factor)
                self.factors[model][number] = factor
            self.at.deploy(model, versions=(1,), config=self.at.config(model))

    def step(self) -> None:
        model = self.chance.choice(MODELS)
        act = self.chance.choice((self.version, self.version, self.instances, self.roll_back, self.restart))
        act(model)
        self.done[act.__name__] += 1
        self.check(model)

    def version(self, model: str) -> None:
        self._drive(model, versions=(self.chance.randint(1, VERSIONS),))

    def instances(self, model: str) -> None:
        self._drive(model, sets=(("instance_group[0].count", str(self.chance.randint(1, 2))),))

    def roll_back(self, model: str) -> None:
        revisions = [view.revision for view in self.at.environments.revisions(self.at["author"], ENV, model)]
        current = max(revisions, key=lambda revision: revision.number)
        earlier = [r.number for r in revisions if r.number > 0 and r.content.digest != current.content.digest]
        if not earlier:
            return
        to = self.chance.choice(earlier)
        view = self.at.changes.rollback(self.at["author"], ENV, model, to=to, reason="soak")
        self._finish(view.request.id)

    def restart(self, _model: str) -> None:
        """Triton is killed and comes back by itself on what the repository holds."""
        self.at.triton.process.stop(0)
        self.at.triton.process.start()
        self.at.triton.process.wait_ready(60)

    def _drive(self, model: str, **wish: object) -> None:
        wish["acknowledge"] = (ROLLED_BACK,)
        try:
            view = self.at.changes.propose(self.at["author"], Proposal(ENV, model, "soak", **wish))  # type: ignore[arg-type]
        except Conflict:
            self.done["nothing to change"] += 1
            return
        self.at.start(view)
        self._finish(view.request.id)

    def _finish(self, change: int) -> None:
        """By workers that crash at a random effect, until one gets through."""
        view = self.at.changes.show(self.at["author"], change)
        for _ in range(50):
            left = self.chance.randint(1, 12)

            def crash(_name: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    self.done["crashes"] += 1
                    raise Crashed

            try:
                view = self.at.finish(view, self.at.worker(boundary=crash))
            except Crashed:
                view = self.at.show(view)
            if view.request.state not in (ChangeState.APPLYING, ChangeState.UNDOING):
                break
        assert view.request.state is ChangeState.APPLIED, (view.request.state, view.request.message)

    def check(self, model: str) -> None:
        current = self.at.environments.deployment(self.at["author"], ENV, model).deployment.revision
        revision = self.at.environments.revision(self.at["author"], ENV, model, current).revision
        expected = self.factors[model][max(revision.content.numbers)]
        deadline = time.monotonic() + 60
        while (seen := self._answer(model)) != expected:
            assert time.monotonic() < deadline, f"{model} answers {seen}, revision {revision.number} means {expected}"
            self.at.worker().once()

    def _answer(self, model: str) -> float | str:
        try:
            return self.at.answer(model)
        except Exception as error:  # a server that has just come back loads its models still
            return str(error)


@click.command()
@click.option("--minutes", type=float, default=120.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(minutes: float, seed: int) -> None:
    logging.getLogger("controlplane").setLevel(logging.CRITICAL)  # what the crashes leave is expected
    runtime = ROOT / "build" / "runtime"
    install_runtime(runtime, progress=lambda words, _share: click.echo(words, err=True))
    with tempfile.TemporaryDirectory(prefix="tritonctl-soak-") as name:
        triton = launch(find(runtime), Path(name))
        database = create_database(f"sqlite:///{name}/db.sqlite")
        upgrade(database)
        try:
            soak = Soak(install(Path(name), database, triton, policy={"approvals": 1}), random.Random(seed))
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                soak.step()
                click.echo(f"\r{dict(soak.done)}", nl=False, err=True)
            soak.at.check_audit()
        finally:
            triton.process.stop(0)
            database.close()
    path = ROOT / "build" / "bench" / "soak.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"seed": seed, "minutes": minutes, "done": dict(soak.done), "fingerprint": fingerprint()}
    path.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(f"\nevery answer was as recorded, the audit log is intact; wrote {path}")


if __name__ == "__main__":
    main()
