# Verifying the whole audit log from the database alone, without the API.
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.domain.audit_report import Finding, Tampering, VerificationReport, excluded, misplaced
from controlplane.domain.checkpoints import Checkpoint, open_checkpoint
from controlplane.domain.merkle import Frontier, Node, leaf_hash
from controlplane.domain.notes import Verifier
from controlplane.errors import IntegrityError
from controlplane.storage.audit_raw import RawAudit, RawEntry
from controlplane.storage.checkpoint_files import CheckpointFiles
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import Storage

_MOST = 20  # warnings of one kind that are worth reading


def verify(
    database: Database, verifiers: Sequence[Verifier], checkpoints: Path | None, *, one_owner: bool
) -> VerificationReport:
    """Recompute everything, on one snapshot, trusting nothing but `verifiers`.

    `checkpoints` is the directory of exported checkpoints, if there is one. `one_owner` says that whoever owns the
    database also holds the key, as in the embedded default; it changes only what the report claims.
    """
    files = CheckpointFiles(checkpoints).read() if checkpoints else []
    with Storage(database).read() as unit:
        raw = unit.raw_audit
        vouched = _Vouched(verifiers)
        for size, note in raw.checkpoints():
            vouched.add("the table", size, note)
        for size, note in files:
            vouched.add("the files", size, note)
        walk = _Walk(vouched.sizes())
        for chunk in raw.entries():
            walk.chunk(raw, chunk)
        walk.end(raw.subtrees_reach())
        lost = raw.missing_triggers()
    covered, judged = vouched.judge(walk)
    warnings = [*vouched.warnings(bool(files)), *walk.warnings]
    if lost:
        warnings.append(f"triggers that keep the log append-only are missing: {', '.join(sorted(lost))}")
    findings = sorted(
        [*walk.findings, *judged], key=lambda found: (found.kind is Tampering.FORGED_CHECKPOINT, found.first)
    )
    covered = min([covered, *(found.first for found in findings if found.kind is not Tampering.FORGED_CHECKPOINT)])
    filed = max((size for size, _ in files if size <= covered), default=0)
    signed = max(vouched.sizes(), default=0)
    cut = next((found for found in findings if found.kind is Tampering.TAIL_CUT), None)
    return VerificationReport(
        size=walk.size,
        root=walk.tree.root(),
        signed=signed,
        covered=covered,
        checkpoints=vouched.matched,
        findings=tuple(findings),
        warnings=tuple(warnings),
        excludes=excluded(size=walk.size, signed=signed, covered=covered, filed=filed, cut=cut, one_owner=one_owner),
    )


@dataclass
class _Walk:
    """One pass over the entries. The tree is made of the *stored* leaf hashes, so that an edited text is one finding and
    not also a wrong root; a hole ends the tree, because nothing behind it has its place any more."""

    sizes: frozenset[int]
    size: int = 0
    tree: Frontier = field(default_factory=Frontier)
    roots: dict[int, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    hole: bool = False
    _misplaced: list[tuple[int, int]] = field(default_factory=list)
    _wrong_subtree: Node | None = None
    _regressions: int = 0
    _last_at: bytes = b""

    def chunk(self, raw: RawAudit, entries: Sequence[RawEntry]) -> None:
        subjects = raw.subjects(entries[0].seq, entries[-1].seq)
        start = self.tree.size
        computed: dict[Node, bytes] = {}
        for entry in entries:
            if not self._placed(entry):
                continue
            self._text(entry, subjects.get(entry.seq, frozenset()))
            if not self.hole:
                computed |= dict(self.tree.append(_stored_leaf(entry)))
                if self.tree.size in self.sizes:
                    self.roots[self.tree.size] = self.tree.root()
        if self._wrong_subtree is None:
            stored = raw.subtrees(start, self.tree.size)
            wrong = [node for node, value in computed.items() if stored.get(node) != value.hex().encode()]
            self._wrong_subtree = min(wrong, default=None)

    def end(self, subtrees_reach: int) -> None:
        if self._misplaced:
            self.findings.append(misplaced(self._misplaced))
        if subtrees_reach > self.size:
            self._found(
                Tampering.TAIL_CUT,
                self.size,
                subtrees_reach - 1,
                f"the log ends before entry {self.size}, but hashes over {subtrees_reach} entries are stored",
            )
        if self._wrong_subtree is not None:
            level, position = self._wrong_subtree
            first, last = position << level, ((position + 1) << level) - 1
            if not self.bad_within(first, last + 1):
                message = f"entries {first} to {last} do not have the hash that was stored over them"
                self._found(Tampering.EDITED, first, last, message)
        if self._regressions > _MOST:
            self.warnings.append(f"the clock went back {self._regressions} times in all")

    def bad_within(self, start: int, end: int) -> bool:
        return any(start <= finding.first < end for finding in self.findings)

    def _placed(self, entry: RawEntry) -> bool:
        if entry.seq < self.size:
            self._found(Tampering.INSERTED, 0, 0, f"there is an entry with the impossible number {entry.seq}")
            self.hole = True
            return False
        if entry.seq > self.size:
            gone = (
                f"entries {self.size} to {entry.seq - 1} are" if entry.seq > self.size + 1 else f"entry {self.size} is"
            )
            self._found(Tampering.DELETED, self.size, entry.seq - 1, f"{gone} gone")
            self.hole = True
        self.size = entry.seq + 1
        return True

    def _text(self, entry: RawEntry, subjects: frozenset[tuple[bytes, bytes]]) -> None:
        if leaf_hash(entry.body).hex().encode() != entry.leaf_hash:
            self._edited(entry.seq, "its text does not have the hash that is stored with it")
            return
        try:
            tree = json.loads(entry.body)
            number = int(tree["seq"])
            repeated = (tree["at"].encode(), tree["actor"]["name"].encode(), tree["action"].encode())
            about = frozenset((kind.encode(), value.encode()) for kind, value in tree["subjects"].items())
        except Exception as error:  # whoever altered the text may have put anything there
            self._edited(entry.seq, f"its text cannot be read ({error!r})")
            return
        if number != entry.seq:
            self._misplaced.append((entry.seq, number))
        elif repeated != (entry.at, entry.actor, entry.action) or about != subjects:
            self._edited(entry.seq, "the columns that it is searched by do not say what its text says")
        if entry.at < self._last_at:
            self._regressions += 1
            if self._regressions <= _MOST:
                self.warnings.append(
                    f"the clock went back before entry {entry.seq}: {entry.at.decode('utf-8', 'replace')}"
                )
        self._last_at = entry.at

    def _edited(self, seq: int, message: str) -> None:
        self._found(Tampering.EDITED, seq, seq, f"entry {seq}: {message}")

    def _found(self, kind: Tampering, first: int, last: int, message: str) -> None:
        self.findings.append(Finding(kind, first, last, message))


class _Vouched:
    """The checkpoints of table and files, and what they say of the tree that was walked."""

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = verifiers
        self._signed: dict[int, dict[bytes, Checkpoint]] = {}
        self._places: dict[str, set[int]] = {"the table": set(), "the files": set()}
        self._false: list[Finding] = []
        self.matched = 0

    def add(self, place: str, size: int, note: str) -> None:
        self._places[place].add(size)
        if not self._verifiers:
            return
        try:
            checkpoint = open_checkpoint(note, self._verifiers).checkpoint
            if checkpoint.size != size:
                raise IntegrityError(f"it is over {checkpoint.size} entries")  # noqa: TRY301 - one message for all
        except IntegrityError as error:
            message = f"the checkpoint over {size} entries in {place} is false: {error.message}"
            self._false.append(Finding(Tampering.FORGED_CHECKPOINT, 0, max(size - 1, 0), message))
        else:
            self._signed.setdefault(size, {})[checkpoint.root] = checkpoint

    def sizes(self) -> frozenset[int]:
        return frozenset(self._signed)

    def judge(self, walk: _Walk) -> tuple[int, list[Finding]]:
        """How many entries are vouched for, and what contradicts the walk. Only the first contradiction counts: every
        later root is wrong with it."""
        findings = list(self._false)
        covered = 0
        wrong: int | None = None
        for size in sorted(self._signed):
            root = walk.roots.get(size)
            if len(self._signed[size]) > 1:
                findings.append(_forked(covered, size, f"two different logs of {size} entries were signed"))
            if root is not None and root in self._signed[size]:
                self.matched += 1
                if wrong is None:
                    covered = size
                else:
                    findings.append(_forked(covered, wrong, f"two logs were signed that differ before entry {wrong}"))
                    wrong = None
                    covered = size
            elif root is not None and wrong is None:
                wrong = size
        last = max(self._signed, default=0)
        if last > walk.size and not any(found.kind is Tampering.TAIL_CUT for found in walk.findings):
            message = f"the log ends before entry {walk.size}, but a checkpoint over {last} entries was signed"
            findings.append(Finding(Tampering.TAIL_CUT, walk.size, last - 1, message))
        if wrong is not None and not walk.bad_within(covered, wrong):
            message = (
                f"entries {covered} to {wrong - 1} fit together, but they are not those that were signed: the tree was "
                "recomputed"
            )
            findings.append(Finding(Tampering.RECOMPUTED, covered, wrong - 1, message))
        return covered, findings

    def warnings(self, with_files: bool) -> list[str]:
        found = []
        if not self._verifiers:
            found.append("no key was given, so no checkpoint was checked")
        table, files = self._places["the table"], self._places["the files"]
        if files - table:
            found.append(f"checkpoints are in the files and not in the table: {_numbers(files - table)}")
        if with_files and table - files:
            found.append(f"checkpoints are in the table and not in the files: {_numbers(table - files)}")
        return found


def _forked(first: int, end: int, message: str) -> Finding:
    return Finding(Tampering.FORKED, first, end - 1, message)


def _numbers(sizes: set[int]) -> str:
    shown = ", ".join(str(size) for size in sorted(sizes)[:_MOST])
    return shown if len(sizes) <= _MOST else f"{shown} and {len(sizes) - _MOST} more"


def _stored_leaf(entry: RawEntry) -> bytes:
    try:
        stored = bytes.fromhex(entry.leaf_hash.decode())
    except ValueError:
        stored = b""
    return stored if len(stored) == 32 else leaf_hash(entry.body)
