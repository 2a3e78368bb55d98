# What verifying the audit log found: the kind of tampering, where, and whom it excludes.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Tampering(StrEnum):
    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TAIL_CUT = "tail_cut"
    RECOMPUTED = "recomputed"
    FORKED = "forked"
    FORGED_CHECKPOINT = "forged_checkpoint"


# Who can have done it, from what was left undone.
_ATTACKER: Mapping[Tampering, str] = {
    Tampering.EDITED: "someone who can write the database and did not recompute the hashes",
    Tampering.DELETED: "someone who can write the database and did not recompute the hashes",
    Tampering.INSERTED: "someone who can write the database and did not recompute the hashes",
    Tampering.REORDERED: "someone who can write the database and did not recompute the hashes",
    Tampering.TAIL_CUT: "someone who can write the database; or a backup was restored that is older than the checkpoint",
    Tampering.RECOMPUTED: "someone who can write the database, recomputed every hash, and does not hold the signing key",
    Tampering.FORKED: "someone who holds the signing key",
    Tampering.FORGED_CHECKPOINT: "someone who can write checkpoints and does not hold the signing key",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """`first` is the first bad entry; where only an interval is known, the entry is one of `first` to `last`."""

    kind: Tampering
    first: int
    last: int
    message: str

    @property
    def attacker(self) -> str:
        return _ATTACKER[self.kind]


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The first `signed` entries are under a checkpoint whose signature was checked; the others are the tail. The first
    `covered` of them are what was signed: all, in an intact log. Warnings are odd and prove nothing: a clock that went
    back, a lost trigger."""

    size: int
    root: bytes
    signed: int
    covered: int
    checkpoints: int
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    excludes: str

    @property
    def intact(self) -> bool:
        return not self.findings

    @property
    def tail(self) -> int:
        """How many entries are under no checkpoint."""
        return max(self.size - self.signed, 0)


def misplaced(numbers: Sequence[tuple[int, int]]) -> Finding:
    """Judge rows whose bodies carry another number: pairs of (row, body), in order of rows, at least one.

    Rows that swapped places carry each other's numbers; a row pushed in shifts the later ones, so that numbers repeat;
    a row taken out and the rest moved up leaves one that nobody carries.
    """
    row, body = numbers[0]
    bodies = {each for _, each in numbers}
    rows = {each for each, _ in numbers}
    if rows == bodies:
        return Finding(
            Tampering.REORDERED, row, row, f"entry {row} stands in another's place: its text says it is entry {body}"
        )
    if body < row or row in bodies:
        first = max(min(row, body), 0)
        return Finding(Tampering.INSERTED, first, first, f"an entry was pushed in at {first}: numbers repeat after it")
    return Finding(
        Tampering.DELETED, row, row, f"entry {row} is gone: in its place stands the one that says it is entry {body}"
    )


def excluded(*, size: int, signed: int, covered: int, filed: int, cut: Finding | None, one_owner: bool) -> str:
    """What the log means, intact or not, in words. `filed` entries are covered by a checkpoint kept outside the database;
    `cut` is the finding that its end is missing."""
    if signed == 0:
        return (
            "No signed checkpoint vouches for any entry: accidents are excluded, but whoever can write the database may "
            "have rewritten all of it."
        )
    parts = []
    if covered:
        parts.append(
            f"Entries 0 to {covered - 1} are as they were signed: nobody without the signing key has altered them."
        )
    broken = min(signed, size)
    if covered < broken:
        parts.append(
            f"Entries {covered} to {broken - 1} were signed too, and are no longer what was signed: no signature vouches "
            "for them any more."
        )
    if cut is not None:
        parts.append(f"Entries {cut.first} to {cut.last} were recorded and are cut off.")
    elif filed:
        parts.append(
            f"The checkpoint files, which are not in the database, show that none of the first {filed} was cut off."
        )
    elif covered == broken:
        parts.append(
            "No checkpoint outside the database was compared: whoever can write it may have cut the log back to an "
            "earlier checkpoint."
        )
    if one_owner:
        parts.append(
            "Here the database, the key and the checkpoint files have one owner, whom this does not exclude: only the "
            "checkpoints that clients have pinned do."
        )
    if size > signed:
        parts.append(
            f"Entries {signed} to {size - 1} are under no checkpoint yet: whoever can write the database could have "
            "altered them."
        )
    return " ".join(parts)
