# Walking through the boundaries of a flow: a worker is hurt at each in turn, another takes over, and the rest is checked.
from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.domain.changes import ChangeState
from controlplane.domain.config_revision import revision_config
from controlplane.services.change_views import ChangeView
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.triton.pbtxt import PbtxtCodec
from tests.faults.workers import Wound, started, wait_stopped
from tests.live.installation import ENV, Installation, install
from tests.live.servers import LiveTriton

LEASE_SECONDS = 0.3
WALKS = 120
"""Seconds within which a hurt change rests on a busy machine."""


@dataclass
class Step:
    """One change that is about to be hurt, and what its end must be: `answer` is what 1.0 gives then, None when it must
    not be served, and `base` what it gives where a failure turned the change back."""

    model: str
    view: ChangeView
    state: ChangeState
    answer: float | None
    base: float | None = None


@dataclass
class Walk:
    """`prepare` starts a change of the flow from whatever the step before left."""

    at: Installation
    url: str
    names: Path
    prepare: Callable[[], Step]
    writes: bool = False
    after_hurt: Callable[[Step], None] = field(default=lambda _step: None)
    check: Callable[[Step], None] = field(default=lambda _step: None)
    _found: list[str] = field(default_factory=list)

    def boundaries(self) -> list[str]:
        """The names of all, found by a walk that nothing happens to."""
        if self._found:
            return self._found
        step = self.prepare()
        names = self.names / f"found{step.view.request.id}"
        with started(self._settings, self.url, self._wound("record"), change=step.view.request.id, names=names) as it:
            it.join(WALKS)
            assert it.exitcode == 0
        self._check(step)
        self._found = names.read_text().splitlines()
        return self._found

    def every(self, *modes: str) -> None:
        """All boundaries; of the writing transactions those before the first effect, as the later ones lie at effects."""
        found = self.boundaries()
        first = next(number for number, name in enumerate(found) if name != "write")
        for mode in modes:
            for number, name in enumerate(found):
                if name != "write" or number < first:
                    self.step(mode, number, name)

    def sample(self, *modes: str, count: int, seed: str) -> None:
        """`count` boundaries of each mode; the same seed names the same ones."""
        found, chance = self.boundaries(), random.Random(seed)
        for mode in modes:
            for number in sorted(chance.sample(range(len(found)), min(count, len(found)))):
                self.step(mode, number, found[number])

    def step(self, mode: str, number: int, name: str) -> None:
        step = self.prepare()
        change, wound = step.view.request.id, self._wound(mode, number)
        with started(self._settings, self.url, wound, change=change, names=self.names / f"{mode}{change}") as process:
            if mode == "stop":
                assert wait_stopped(process), name
            else:
                process.join(WALKS)
                assert process.exitcode == (-signal.SIGKILL if mode == "kill" else 0), name
            self.after_hurt(step)
            if mode == "fail":
                if name.split()[1:2] == ["forward"]:
                    step.state, step.answer = ChangeState.UNDONE, step.base
                if self.at.show(step.view).request.state is ChangeState.STUCK:
                    self.at.changes.resume(self.at["author"], change, "retry")
            rested = rest(self.at, step.view)
            assert rested.request.state is step.state, (mode, number, name, rested.request)
            if mode == "stop":
                assert process.pid is not None
                os.kill(process.pid, signal.SIGCONT)
                process.join(WALKS)
                assert process.exitcode == 0, name
        self._check(step)

    @property
    def _settings(self) -> Settings:
        """The worker that is hurt watches nothing meanwhile: the boundaries are those of the change alone."""
        worker = self.at.settings.worker.model_copy(update={"watch_seconds": 3600.0})
        return self.at.settings.model_copy(update={"worker": worker})

    def _wound(self, mode: str, number: int = -1) -> Wound:
        return Wound(mode, number, writes=self.writes)

    def _check(self, step: Step) -> None:
        check_rest(self.at, step)
        self.check(step)


def rest(at: Installation, view: ChangeView) -> ChangeView:
    """Let another worker drive the change until it rests; it has to wait for the lease of the one that was hurt."""
    worker = at.worker("second")
    deadline = time.monotonic() + WALKS
    while (seen := at.show(view)).request.state in (ChangeState.APPLYING, ChangeState.UNDOING):
        assert time.monotonic() < deadline, seen.request
        worker.once()
        time.sleep(0.05)
    return seen


UNREACHABLE = "cannot be observed (server.unreachable)"
"""What a host that takes the processors away for seconds makes of a server that is well; the next watch tells."""


def watched(at: Installation, model: str) -> tuple[str, ...]:
    """What a watch of all deployments finds of this one, as soon as no lease is in its way and the server answers in time."""
    worker = at.worker("watcher")
    before = at.clock.now()
    deadline = time.monotonic() + WALKS
    while True:
        seen = at.environments.deployment(at["author"], ENV, model).deployment
        over = time.monotonic() > deadline
        if seen.watched_at is not None and seen.watched_at >= before and (over or UNREACHABLE not in seen.drift):
            return seen.drift
        assert not over
        worker.once()
        time.sleep(0.05)


def check_rest(at: Installation, step: Step) -> None:
    """The change ended, and files, config and answers are the recorded revision's; nothing is half done."""
    seen = at.show(step.view)
    assert seen.request.state is step.state, seen.request
    deployment = at.environments.deployment(at["author"], ENV, step.model)
    assert deployment.deployment.active_change is None
    home = at.triton.repository / step.model
    if step.answer is None:
        assert (at.served(step.model), home.exists()) == ([], False)
    else:
        assert at.answer(step.model) == step.answer, (seen.request, seen.journal)
    if deployment.current is None:
        return
    wanted = deployment.current.content
    if wanted.config is not None:
        config = PbtxtCodec().parse((home / "config.pbtxt").read_text())
        assert config == revision_config(wanted.config, wanted.numbers)
        assert at.served(step.model) == list(wanted.numbers)
    assert watched(at, step.model) == ()  # bytes, config, answers and instances against the accepted revision


def walked(home: Path, database: Database, triton: LiveTriton, **policy: int) -> Iterator[Installation]:
    """An installation whose leases are short and whose audit log must be whole after all that was done to it."""
    at = install(home, database, triton, policy=dict(policy))
    worker = at.settings.worker.model_copy(update={"lease_seconds": LEASE_SECONDS, "watch_seconds": 0.1})
    at.settings = at.settings.model_copy(update={"worker": worker})
    yield at
    at.check_audit()


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)
