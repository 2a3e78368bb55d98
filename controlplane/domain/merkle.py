# RFC 6962 Merkle trees: appending, proving and verifying. Pure; hashes are 32 raw bytes.
"""The tree over n leaves splits at the largest power of two below n. So it consists of *completed subtrees*, which never
change again, one for each bit of n; an append completes one subtree for each trailing one-bit of n, and everything else
is recomputed from completed subtrees. A `Node` (level, position) is the completed subtree over the 2**level leaves from
position * 2**level on; level 0 is the leaf hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

Node = tuple[int, int]
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def peaks(size: int) -> list[Node]:
    """The completed subtrees that a tree of `size` leaves consists of, from left to right."""
    nodes = []
    start = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            nodes.append((level, start >> level))
            start += 1 << level
    return nodes


class Frontier:
    """The right edge of a growing tree: the hashes of its peaks, which is all that appending needs."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """`hashes` are those of `peaks(size)`, in that order."""
        assert len(hashes) == size.bit_count()
        self.size = size
        self._hashes = list(hashes)

    def append(self, leaf: bytes) -> list[tuple[Node, bytes]]:
        """Add a leaf hash; return the subtrees of level 1 and above that this completed, the smallest first."""
        completed = []
        level, position, current = 0, self.size, leaf
        while position & 1:
            current = node_hash(self._hashes.pop(), current)
            level, position = level + 1, position >> 1
            completed.append(((level, position), current))
        self._hashes.append(current)
        self.size += 1
        return completed

    def root(self) -> bytes:
        return _fold(self._hashes) if self._hashes else EMPTY_ROOT


def _fold(hashes: Sequence[bytes]) -> bytes:
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root
