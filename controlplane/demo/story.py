# The story of the demo, chapter by chapter; every step is checked.
from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np

from clients.control.types import Change, JsonObject
from controlplane.demo import digits as real
from controlplane.demo.digits import Caller, Image, Reading
from controlplane.demo.narrator import Narrator
from controlplane.demo.stage import ENVIRONMENT, Stage
from controlplane.demo.tamper import forge
from controlplane.domain.audit import Action

MODEL = "digits"
MEASURED = "reader"
_IN = f"{MODEL} --env {ENVIRONMENT}"
_BLOCKED, _DENIED, _UNDONE, _TAMPERED = 6, 3, 7, 8
_SAMPLES = 8
_SWEEP_SECONDS, _RATE = 60, 100


class Story:
    """Told once, on an open stage. Every method is a chapter and raises DemoFailed where something is not as told."""

    def __init__(self, stage: Stage, narrator: Narrator) -> None:
        self._stage = stage
        self._narrator = narrator
        self._say, self._check, self._run = narrator.say, narrator.check, stage.run
        self._digits = real.load()
        self._before: Reading | None = None

    def tell(self) -> None:
        self._lay_out()
        for title, chapter in (
            ("A model is registered", self.register),
            ("Nothing goes live without a second pair of eyes", self.deploy_first),
            ("The live model reads handwriting", self.ask),
            ("A setting is tuned while it serves", self.tune),
            ("A better version takes over", self.deploy_second),
            ("A change goes wrong and undoes itself", self.fail),
            ("Back to the first revision, byte for byte", self.roll_back),
            ("Which config is right is measured, not guessed", self.measure),
            ("Somebody rewrites history, and is found out", self.tamper),
        ):
            with self._narrator.chapter(title):
                chapter()

    def register(self) -> None:
        self._say("""Real handwritten digits, 8 by 8 pixels each. A team has trained a first, simple classifier on 1,297
            of them and hands it over as an ONNX file. This is one of the 500 that it has never seen:""")
        self._narrator.show(real.drawing(self._digits.images[0]))
        self._say("""Registering it streams the file into a store under its digest, checks it in a process of its own,
            reads its signature, tries whether rows can be batched, and records what it answers to eight real digits.
            Those answers are asked for again each time that it is loaded.""")
        self._run(f"tritonctl model register {MODEL} softmax.onnx --samples samples.npz --source 'softmax regression'")
        version = self._stage.client.catalog.version(MODEL, 1)
        self._check(version.files[0].sha256 == _sha256(self._stage.desk / "softmax.onnx"), "the digest is the file's")
        self._check(version.golden is not None and version.golden.cases == _SAMPLES, "8 answers are recorded")
        self._say("Triton needs a config. This writes a complete one and says why it chose what:")
        self._run(f"tritonctl config generate {MODEL}:1 --max-batch-size 16 --file config.pbtxt")
        self._check("max_batch_size: 16" in (self._stage.desk / "config.pbtxt").read_text(), "it lies in config.pbtxt")

    def deploy_first(self) -> None:
        self._say("What should serve is proposed, with a reason, and becomes a plan with a digest of its own.")
        self._run(f"tritonctl change propose {_IN} --version 1 --config config.pbtxt --reason 'first deployment'")
        self._say("The author is in a hurry:")
        self._run("tritonctl change apply 1", exits=_BLOCKED)
        self._check(
            [blocker.code for blocker in self._change(1).blockers] == ["approvals"],
            f"refused with exit code {_BLOCKED}: this environment asks for one approval",
        )
        self._say("An approval lifts that. It cannot be the author's own:")
        self._run("tritonctl change approve 1", exits=_DENIED, since="approve plan")
        self._check(self._change(1).approvals == (), f"refused with exit code {_DENIED}")
        self._say("Somebody else looks at the plan and approves that digest: of another plan it would not count.")
        self._run("tritonctl change approve 1 --context approver --comment 'looks good'", since="approve plan")
        self._say("""Now it is applied: files are written beside the repository and renamed in, Triton loads them, and then
            it is proven that what serves is what was approved.""")
        self._run("tritonctl change apply 1", since="journal")
        self._check_applied(1)

    def ask(self) -> None:
        self._save("digit.npz", self._digits.images[:1])
        self._say("Which digit was the one above?")
        self._run(f"tritonctl infer {_IN} --input digit.npz --save answer.npz")
        said = self._saved_answer()
        self._check(said == self._digits.labels[0], f"the live server says {said}, and that is what its writer meant")
        self._before = self._read("softmax")

    def tune(self) -> None:
        self._say("""A second instance should answer more at once. The plan says beforehand what that costs: an instance
            count changes in place. A client goes on asking all the while.""")
        with self._caller() as caller:
            self._change_it(2, "--set 'instance_group[0].count=2'", "two requests at a time", "in place")
        self._check_lost_none(caller)
        self._say("Letting requests wait for company to be batched with is another thing: Triton loads the model anew.")
        with self._caller() as caller:
            delay = "--set dynamic_batching.max_queue_delay_microseconds=500"
            self._change_it(3, delay, "batch what comes within half a millisecond", "reload")
        self._check_lost_none(caller)

    def deploy_second(self) -> None:
        assert self._before is not None
        self._say("The team comes back with a small neural network. It becomes version 2: version 1 stays as it is.")
        self._run(f"tritonctl model register {MODEL} mlp.onnx --samples samples.npz --source 'one hidden layer'")
        with self._caller() as caller:
            self._change_it(4, "--version 2", "reads more digits right", "in place")
        self._check_lost_none(caller)
        after = self._read("mlp")
        self._check(after.right > self._before.right, f"{after.right - self._before.right} more than version 1")
        learnt = (after.digits == self._digits.labels) & (self._before.digits != self._digits.labels)
        one = int(np.flatnonzero(learnt)[0])
        self._say(f"""This one, for example, is a {self._digits.labels[one]}. Version 1 took it for a
            {self._before.digits[one]}, version 2 reads a {after.digits[one]}:""")
        self._narrator.show(real.drawing(self._digits.images[one]))

    def fail(self) -> None:
        self._say("""Somebody wants late requests to be refused after a second, and mistakes the unit. Triton takes that
            config and says READY. The plan carries a note, which the approver overlooks.""")
        served = self._stage.client.environments.deployment(ENVIRONMENT, MODEL)
        field = "dynamic_batching.default_queue_policy.default_timeout_microseconds"
        with self._caller() as caller:
            self._propose_and_approve(5, f"--set {field}=1", "do not let requests wait for more than a second")
            self._run("tritonctl change apply 5", exits=_UNDONE, since="journal")
        change = self._change(5)
        self._check(any(field in note for note in change.plan.notes), "the plan had a note about that very field")
        self._check(
            change.summary.state == "undone" and "Request timeout expired" in change.summary.message,
            f"exit code {_UNDONE}: verification asked for the recorded answers and was refused, so it was undone",
        )
        now = self._stage.client.environments.deployment(ENVIRONMENT, MODEL)
        self._check((now.revision, now.digest) == (served.revision, served.digest), "the revision is the one before")
        self._say(f"""The client that went on asking got {caller.answered} answers, and {len(caller.refused)} refusals
            while the bad config served, until it was undone. Is everything as before?""")
        self._read("mlp")

    def roll_back(self) -> None:
        self._say("""Every accepted revision is a rollback point, with its bytes kept. Going back is a change like any
            other; here it needs no second approval, so that it is quick when it has to be.""")
        with self._caller() as caller:
            self._run(f"tritonctl rollback {_IN} --to 1 --reason 'a customer compares with the old answers'")
        self._check_applied(6)
        self._check_lost_none(caller)
        self._say("Is it really what was accepted then? The file that Triton loaded, and the one that was handed over:")
        live = self._stage.repository / MODEL / "1" / "model.onnx"
        self._run(f"sha256sum {live} softmax.onnx")
        registered = self._stage.client.catalog.version(MODEL, 1).files[0].sha256
        self._check(_sha256(live) == registered, "the bytes in the repository are those of the registered version 1")
        rooms = self._stage.client.environments
        first, last = rooms.revision(ENVIRONMENT, MODEL, 1), rooms.revision(ENVIRONMENT, MODEL, 5)
        self._run(f"tritonctl revision list {_IN}")
        self._check(first.digest == last.digest, "revision 5 has the very content of revision 1: versions and config")
        self._check_proofs(last.proofs)
        self._read("softmax")

    def measure(self) -> None:
        self._say(f"""The same network is to serve others as well, {_RATE} times a second, and nine of ten answers are to take
            less than half a second.
            How many instances, which batches, how long may requests wait for company? That is what a sweep finds out.
            Candidates are loaded side by side on a Triton of its own and measured by turns; nothing that serves is touched.""")
        self._run(f"tritonctl model register {MEASURED} mlp.onnx --samples samples.npz")
        wish = "--metric latency_ms --qualifier p90 --at-most 500 --stakeholder product"
        self._run(f"tritonctl model objective set {MEASURED} fast {wish}")
        spec = f"model: {MEASURED}\nload:\n  rate: {_RATE}\nsearch:\n  seconds: {_SWEEP_SECONDS}\n"
        (self._stage.desk / "sweep.yaml").write_text(spec)
        self._run("cat sweep.yaml")
        self._run(f"tritonctl sweep run {MEASURED} --spec sweep.yaml", since="front", until="lost")
        sweep = self._stage.client.sweeps.get(1)
        chosen = (sweep.answer or {}).get("chosen")
        self._check(
            sweep.state == "finished" and chosen is not None, f"trial {chosen} is chosen, and why stands beside it"
        )
        self._say(
            "The choice is proposed like anything else, with what was measured of it as evidence that the approver sees."
        )
        self._run(f"tritonctl sweep propose 1 --env {ENVIRONMENT}", since="evidence:")
        self._run("tritonctl change approve 7 --context approver", since="approve plan")
        self._run("tritonctl change apply 7", since="journal")
        self._check_applied(7)
        evidence = self._change(7).plan.evidence
        self._check(
            evidence is not None and f"{evidence.sweep}.{evidence.trial}" == chosen and evidence.rows == sweep.evidence,
            "what serves is the trial that was measured, and its evidence is bound to the plan by digest",
        )
        self._say("And back, to nothing. That ends a service, so it needs the approval that other rollbacks do not.")
        self._run(
            f"tritonctl rollback {MEASURED} --env {ENVIRONMENT} --to 0 --reason 'shown'",
            since="plan 1",
            until="approvals",
        )
        self._run("tritonctl change approve 8 --context approver", since="approve plan")
        self._run("tritonctl change apply 8", since="journal")
        self._check(self._change(8).summary.state == "applied", "change 8 is applied")

    def tamper(self) -> None:
        self._say("All of this is in the audit log, the refusals too: who, what, when, on which digest.")
        self._run("tritonctl audit list --limit 12")
        self._run("tritonctl audit checkpoint --sign --context admin")
        seq = self._seq_of(Action.CHANGE_APPROVED, 5)
        self._say("""The approver of the change that went wrong would rather have the author blamed, and gets hold of the
            database. We let him have a copy:""")
        forgery = forge(self._stage.home / "db.sqlite", self._stage.desk / "copy.sqlite", seq)
        self._narrator.show(f"{forgery.statement};\n\nError: {forgery.refusal}")
        self._check("append-only" in forgery.refusal, "the database itself refuses")
        drops = "\n".join(f"DROP TRIGGER {name};" for name in forgery.dropped)
        self._narrator.show(f"{drops}\n{forgery.statement};")
        self._say("Its owner can drop the triggers, though, and then the row is changed. Is it found?")
        self._run(
            "tritonctl audit verify --database sqlite:///copy.sqlite",
            exits=_TAMPERED,
            says=("the audit log is not intact", f"edited at entry {seq}"),
        )
        self._check(True, f"exit code {_TAMPERED}: the edited entry is named, number {seq}")  # by `says`
        self._say("And the log itself, which nobody has touched?")
        self._run("tritonctl audit verify", says=("the audit log is intact",))

    def _lay_out(self) -> None:
        for path in (real.SOFTMAX, real.MLP):
            shutil.copy(path, self._stage.desk / path.name)
        self._save("samples.npz", self._digits.images[:_SAMPLES])

    def _save(self, name: str, images: Image) -> None:
        np.savez(self._stage.desk / name, image=images)

    def _saved_answer(self) -> int:
        with np.load(self._stage.desk / "answer.npz", allow_pickle=False) as file:
            return int(file["digit"][0, 0])

    def _change(self, number: int) -> Change:
        return self._stage.client.changes.get(number)

    def _propose_and_approve(self, number: int, options: str, reason: str) -> None:
        self._run(f"tritonctl change propose {_IN} {options} --reason '{reason}'", since="plan 1", until="approvals")
        self._run(f"tritonctl change approve {number} --context approver", since="approve plan")

    def _change_it(self, number: int, options: str, reason: str, cost: str) -> None:
        self._propose_and_approve(number, options, reason)
        self._check(
            self._change(number).plan.reload_class == cost.replace(" ", "_"), f"what it costs was foretold: {cost}"
        )
        self._run(f"tritonctl change apply {number}", since="journal")
        self._check_applied(number)

    def _check_applied(self, number: int) -> None:
        change = self._change(number)
        self._check(change.summary.state == "applied", f"change {number} is applied")
        self._check_proofs(change.proofs)

    def _check_proofs(self, proofs: tuple[JsonObject, ...]) -> None:
        """All shown; on a machine that is busy one instance may have answered every probe, and that is said."""
        skipped = [str(proof["name"]) for proof in proofs if proof["status"] == "skipped"]
        shown = [proof for proof in proofs if proof["status"] == "shown"]
        self._check(
            len(shown) + len(skipped) == len(proofs) and all(name.startswith("instances") for name in skipped),
            f"{len(shown)} of {len(proofs)} proofs were shown" + (", and one was skipped" if skipped else ""),
        )

    def _caller(self) -> Caller:
        return Caller(self._stage.triton, MODEL, self._digits.images[0])

    def _check_lost_none(self, caller: Caller) -> None:
        self._check(
            caller.answered > 0 and not caller.refused,
            f"a client asked {caller.answered} times meanwhile, and was answered {caller.answered} times"
            if not caller.refused
            else f"no request is lost meanwhile; {len(caller.refused)} were: {caller.refused[0]}",
        )

    def _read(self, trained: str) -> Reading:
        """Ask about all test images; the answers must be as good as training said, but for rounding."""
        count = len(self._digits.labels)
        found = real.read(self._stage.triton, MODEL, self._digits)
        expected = round(self._digits.accuracy[trained] * count)
        self._check(
            abs(found.right - expected) <= 1,
            f"of {count} digits that it never saw, the live server reads {found.right} right: "
            f"{found.right / count:.1%}, in {found.seconds:.1f} s",
        )
        return found

    def _seq_of(self, action: Action, change: int) -> int:
        page = self._stage.client.audit.entries(subject=f"change:{change}", action=action.value)
        return page.items[0].seq


def _sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
