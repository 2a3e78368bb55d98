# Checkpoints of the audit log (C2SP tlog-checkpoint) and offline proofs that entries are in it.
"""A proof file is text, in the manner of c2sp.org/tlog-proof, for several entries of one subject::

triton-controlplane/audit-proof@v1
subject change 12
entry 5 {"action":"change.proposed",…}
<base64 hash, one line each, the lowest first>
entry 9 {…}
…

<signed checkpoint>
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.audit import AuditEntry, read_entry
from controlplane.domain.merkle import inclusion_holds, leaf_hash
from controlplane.domain.notes import Signer, Verifier, open_note
from controlplane.errors import AuditBroken, IntegrityError

_PROOF = "triton-controlplane/audit-proof@v1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a signature vouches for: the first `size` entries of the log `origin` have the Merkle root `root`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with the note that it was read from."""

    checkpoint: Checkpoint
    note: str

    @property
    def size(self) -> int:
        return self.checkpoint.size


def sign_checkpoint(signer: Signer, size: int, root: bytes) -> SignedCheckpoint:
    """Whoever calls this has checked that the tree begins with every tree signed before."""
    checkpoint = Checkpoint(signer.verifier.name, size, root)
    return SignedCheckpoint(checkpoint, signer.sign(checkpoint.text()))


def open_checkpoint(note: str, verifiers: Sequence[Verifier]) -> SignedCheckpoint:
    """Raises IntegrityError unless one of `verifiers` signed it under the log's own name."""
    text, signer = open_note(note, verifiers)
    checkpoint = _parse(text)
    if checkpoint.origin != signer.name:
        raise IntegrityError(f"{signer.name} signed a checkpoint of another log, {checkpoint.origin!r}")
    return SignedCheckpoint(checkpoint, note)


def claimed_checkpoint(note: str) -> Checkpoint:
    """What a note says, whoever signed it. Raises IntegrityError when it is not a checkpoint."""
    return _parse(note.rpartition("\n\n")[0] + "\n")


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry's stored bytes, and the hashes that lead from it to a checkpoint's root."""

    seq: int
    body: str
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """Entries about one subject that are in the log under a signed checkpoint. It proves each of them, not that there
    are no others."""

    subject: tuple[str, str]
    entries: tuple[ProvenEntry, ...]
    checkpoint: SignedCheckpoint

    def text(self) -> str:
        lines = [_PROOF, f"subject {self.subject[0]} {self.subject[1]}"]
        for entry in self.entries:
            lines += [f"entry {entry.seq} {entry.body}", *(_encode(node) for node in entry.path)]
        return "\n".join(lines) + "\n\n" + self.checkpoint.note


@dataclass(frozen=True, slots=True)
class ProvenSubject:
    """What a proof file shows."""

    subject: tuple[str, str]
    entries: tuple[AuditEntry, ...]
    checkpoint: Checkpoint


def verify_proof(text: str, verifiers: Sequence[Verifier]) -> ProvenSubject:
    """Check a proof file without the log. Raises AuditBroken, or IntegrityError for the checkpoint's signature."""
    head, gap, note = text.partition("\n\n")
    lines = head.split("\n")
    if not gap or lines[0] != _PROOF or len(lines) < 2:
        raise AuditBroken("this is not a proof file", hint="tritonctl audit proof CHANGE writes one")
    checkpoint = open_checkpoint(note, verifiers).checkpoint
    word, _, rest = lines[1].partition(" ")
    kind, _, identifier = rest.partition(" ")
    entries: list[AuditEntry] = []
    for proven in _proven_entries(lines[2:]):
        entry = read_entry(proven.body)
        leaf = leaf_hash(proven.body.encode())
        if not inclusion_holds(leaf, proven.seq, checkpoint.size, proven.path, checkpoint.root):
            raise AuditBroken(f"entry {proven.seq} of the proof is not in the log of the checkpoint")
        if entry.seq != proven.seq or entry.subjects.get(kind) != identifier:
            raise AuditBroken(f"entry {proven.seq} of the proof is not about {kind} {identifier}")
        entries.append(entry)
    if word != "subject" or not entries:
        raise AuditBroken("the proof names no entry")
    return ProvenSubject((kind, identifier), tuple(entries), checkpoint)


def _proven_entries(lines: Sequence[str]) -> list[ProvenEntry]:
    found: list[tuple[int, str, list[bytes]]] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        number, _, body = rest.partition(" ")
        if word == "entry" and number.isdecimal():
            found.append((int(number), body, []))
        elif rest or not found:
            raise AuditBroken(f"the proof has a line that cannot be read: {line[:100]!r}")
        else:
            found[-1][2].append(_hash(line))
    return [ProvenEntry(seq, body, tuple(path)) for seq, body, path in found]


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or lines[-1]:
        raise IntegrityError("this is not a checkpoint: it needs an origin, a size and a root")
    origin, size, root = lines[:3]
    if not size.isascii() or not size.isdecimal() or (size != "0" and size.startswith("0")):
        raise IntegrityError(f"this is not a checkpoint: {size[:100]!r} is not a size")
    return Checkpoint(origin, int(size), _hash(root))


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hash(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != 32:
        raise IntegrityError(f"{text[:100]!r} is not a hash in base64")
    return data
