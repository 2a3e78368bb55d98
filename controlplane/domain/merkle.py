# RFC 6962 Merkle trees: appending, proving and verifying. Pure; hashes are 32 raw bytes.
"""The tree over n leaves splits at the largest power of two below n. So it consists of *completed subtrees*, which never
change again, one for each bit of n; an append completes one subtree for each trailing one-bit of n, and everything else
is recomputed from completed subtrees. A `Node` (level, position) is the completed subtree over the 2**level leaves from
position * 2**level on; level 0 is the leaf hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

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
        return fold(self._hashes) if self._hashes else EMPTY_ROOT


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over peaks from left to right: joined from the right. There is at least one."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


# A proof is a list of subtree hashes. Each subtree covers leaves [start, end) and may be incomplete on the right; `range_nodes`
# says which completed subtrees to fetch for it and `range_hash` joins them.

Range = tuple[int, int]


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose hashes prove that leaf `index` is in the tree of `size` leaves, the lowest first (RFC 6962
    §2.1.1)."""
    assert 0 <= index < size
    start, end = 0, size
    ranges = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The subtrees whose hashes prove that the tree of `new` leaves begins with the tree of `old` leaves (RFC 6962
    §2.1.2). Empty when there is nothing to prove: an empty old tree, or equal sizes."""
    assert 0 <= old <= new
    if old in {0, new}:
        return []
    start, end = 0, new
    ranges = []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start > 0:  # otherwise it is the old tree itself, whose root the verifier has
        ranges.append((start, end))
    return ranges[::-1]


def range_nodes(subtree: Range) -> list[Node]:
    start, end = subtree
    return [(level, (start >> level) + position) for level, position in peaks(end - start)]


def range_hash(subtree: Range, hashes: Mapping[Node, bytes]) -> bytes:
    """Raises KeyError when `hashes` lacks one of `range_nodes(subtree)`."""
    return fold([hashes[node] for node in range_nodes(subtree)])


def inclusion_holds(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 §2.1.3.2."""
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    current = leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = node_hash(sibling, current)
            while not node & 1 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)
