# Reading the audit log, signing checkpoints over it, and proving what is in it.
from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import AuditEntry
from controlplane.domain.checkpoints import Proof, ProvenEntry, SignedCheckpoint, open_checkpoint, sign_checkpoint
from controlplane.domain.merkle import consistency_ranges, inclusion_ranges, leaf_hash
from controlplane.domain.notes import Signer, Verifier
from controlplane.errors import AuditBroken, Conflict, InvalidInput, NotFound
from controlplane.services.access import AccessService
from controlplane.storage.checkpoint_files import CheckpointFiles
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_LOOK = "tritonctl audit verify"


class AuditService:
    """`verifiers` are the log's keys, the current one first, older ones after a rotation. `signer` is None in processes
    that are not trusted with the key."""

    def __init__(
        self,
        storage: Storage,
        access: AccessService,
        files: CheckpointFiles,
        verifiers: Sequence[Verifier],
        signer: Signer | None,
    ) -> None:
        assert verifiers
        self._storage = storage
        self._access = access
        self._files = files
        self._verifiers = tuple(verifiers)
        self._signer = signer

    @property
    def key(self) -> str:
        """The verifier key that clients pin."""
        return str(self._verifiers[0])

    def list(
        self,
        principal: Principal,
        *,
        subject: tuple[str, str] | None = None,
        actor: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[AuditEntry, ...]:
        """The newest first; `subject` is kind and id, `before` the number at which the page before ended."""
        self._access.require(principal, Permission.AUDIT_READ)
        with self._storage.read() as unit:
            return unit.audit.entries(subject=subject, actor=actor, action=action, before=before, limit=limit)

    def latest_note(self) -> str | None:
        """The latest signed checkpoint, for every answer: each client is a witness."""
        with self._storage.read() as unit:
            return unit.audit.latest_checkpoint()

    def checkpoint(self, principal: Principal) -> SignedCheckpoint | None:
        """`sign`, at someone's wish."""
        self._access.require(principal, Permission.AUDIT_CHECKPOINT)
        return self.sign()

    def sign(self) -> SignedCheckpoint | None:
        """Sign the log as it is now and write the file; the latest checkpoint when nothing was appended since, None for
        an empty log.

        What was signed before must be the beginning of it, and every entry since is hashed anew: AuditBroken otherwise,
        and nothing is signed. Raises Conflict in a process without the key.
        """
        if self._signer is None:
            raise Conflict("this process does not hold the signing key", hint="the worker signs: tritonctl worker")
        with self._storage.write() as unit:
            unit.audit.lock_signing()
            stored = self._opened(unit.audit.latest_checkpoint())
            exported = self._opened(self._files.newest())
            size = unit.audit.size()
            for previous in (stored, exported):
                _check_begins_with(unit, size, previous)
            if size == 0:
                return None
            if exported is not None and exported.size == size:
                signed = exported
            elif stored is not None and stored.size == size:
                signed = stored
            else:
                covered = max(stored.size if stored else 0, exported.size if exported else 0)
                signed = sign_checkpoint(self._signer, size, _rehashed_root(unit, covered, size))
            if stored is None or stored.size < size:
                unit.audit.add_checkpoint(size, signed.note)
        # After the commit: a file that tells of a checkpoint which was rolled back would be a riddle, while a missing
        # one is written at the next call.
        self._files.write(signed.size, signed.note)
        return signed

    def consistency(self, principal: Principal, old: int, new: int) -> tuple[bytes, ...]:
        """The hashes that prove that the first `old` entries are the beginning of the first `new`. Raises InvalidInput
        for sizes that are not 0 <= old <= new <= the log's."""
        self._access.require(principal, Permission.AUDIT_READ)
        with self._storage.read() as unit:
            size = unit.audit.size()
            if not 0 <= old <= new <= size:
                raise InvalidInput(f"there is no proof from {old} to {new} entries", hint=f"the log has {size}")
            return tuple(unit.audit.hashes(consistency_ranges(old, new)))

    def prove(self, principal: Principal, change: int) -> Proof:
        """Every entry about the change, provable offline with the key alone. Signs a checkpoint when the latest does
        not cover them; raises Conflict where that takes another process, and NotFound when there are none."""
        self._access.require(principal, Permission.AUDIT_READ)
        subject = ("change", str(change))
        latest = self._opened(self.latest_note())
        with self._storage.read() as unit:
            entries = unit.audit.entries(subject=subject)[::-1]
        if not entries:
            raise NotFound(f"the audit log says nothing of change {change}", hint="tritonctl change list")
        if latest is None or latest.size <= entries[-1].seq:
            if self._signer is None:
                raise Conflict(
                    f"entry {entries[-1].seq} is not under a signed checkpoint yet",
                    hint="try again when the worker has signed the next one, or: tritonctl audit checkpoint",
                )
            latest = self.sign()
            assert latest is not None
        with self._storage.read() as unit:
            proven = [
                ProvenEntry(
                    entry.seq,
                    entry.body().decode(),
                    tuple(unit.audit.hashes(inclusion_ranges(entry.seq, latest.size))),
                )
                for entry in entries
            ]
        return Proof(subject, tuple(proven), latest)

    def _opened(self, note: str | None) -> SignedCheckpoint | None:
        return None if note is None else open_checkpoint(note, self._verifiers)


def _check_begins_with(unit: UnitOfWork, size: int, previous: SignedCheckpoint | None) -> None:
    if previous is None:
        return
    if previous.size > size:
        raise AuditBroken(
            f"the audit log has {size} entries, but a checkpoint over {previous.size} was signed", hint=_LOOK
        )
    if unit.audit.root(previous.size) != previous.checkpoint.root:
        raise AuditBroken(
            f"the first {previous.size} entries of the audit log are not those that were signed", hint=_LOOK
        )


def _rehashed_root(unit: UnitOfWork, covered: int, size: int) -> bytes:
    """The root over `size` entries, from the signed part's peaks and the bodies since: what is stored of their hashes
    is checked, not trusted."""
    frontier = unit.audit.frontier(covered)
    since = chain.from_iterable(unit.raw_audit.entries(after=covered - 1))
    for entry in islice(since, size - covered):
        leaf = leaf_hash(entry.body)
        if entry.seq != frontier.size or entry.leaf_hash != leaf.hex().encode():
            raise AuditBroken(f"audit entry {entry.seq} is not what was appended", hint=_LOOK)
        frontier.append(leaf)
    if frontier.size != size or frontier.root() != unit.audit.root(size):
        raise AuditBroken(f"the stored hashes over entries {covered} to {size - 1} are not theirs", hint=_LOOK)
    return frontier.root()
