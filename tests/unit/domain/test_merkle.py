# The Merkle tree against published vectors and against a naive reading of RFC 6962.
from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.control.witness import CheckpointMismatch, SeenCheckpoint, check_consistent
from controlplane.domain.merkle import (
    EMPTY_ROOT,
    Frontier,
    Node,
    consistency_ranges,
    inclusion_holds,
    inclusion_ranges,
    leaf_hash,
    peaks,
    range_hash,
    range_nodes,
)

# The reference tree of Certificate Transparency's implementations.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


class Tree:
    """All completed subtrees of some leaves, as the store keeps them."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.frontier = Frontier()
        self.nodes: dict[Node, bytes] = {}
        for index, data in enumerate(leaves):
            self.nodes[0, index] = leaf_hash(data)
            self.nodes |= dict(self.frontier.append(leaf_hash(data)))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return [range_hash(subtree, self.nodes) for subtree in inclusion_ranges(index, size)]

    def consistency(self, old: int, new: int) -> list[bytes]:
        return [range_hash(subtree, self.nodes) for subtree in consistency_ranges(old, new)]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_match_the_published_ones(size: int) -> None:
    assert Tree(LEAVES[:size]).frontier.root().hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("place", PATHS)
def test_inclusion_proofs_match_the_published_ones(place: tuple[int, int]) -> None:
    assert [node.hex() for node in Tree(LEAVES).inclusion(*place)] == PATHS[place]


@pytest.mark.parametrize("sizes", CONSISTENCY)
def test_consistency_proofs_match_the_published_ones(sizes: tuple[int, int]) -> None:
    assert [node.hex() for node in Tree(LEAVES).consistency(*sizes)] == CONSISTENCY[sizes]


leaves_of = st.lists(st.binary(max_size=4), min_size=1, max_size=70)


@given(leaves_of, st.data())
def test_a_tree_resumed_from_its_peaks_grows_to_the_naive_root(leaves: list[bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(leaves)))
    tree = Tree(leaves[:size])
    resumed = Frontier(size, [tree.nodes[node] for node in peaks(size)])
    for leaf in leaves[size:]:
        resumed.append(leaf_hash(leaf))
    assert resumed.root() == naive_root(leaves)


@given(leaves_of, st.data())
def test_every_inclusion_proof_holds_and_no_altered_one_does(leaves: list[bytes], data: st.DataObject) -> None:
    size, tree, root = len(leaves), Tree(leaves), naive_root(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof, leaf = tree.inclusion(index, size), leaf_hash(leaves[index])
    assert inclusion_holds(leaf, index, size, proof, root)
    assert not inclusion_holds(leaf_hash(b"other" + leaves[index]), index, size, proof, root)
    assert not inclusion_holds(leaf, index, size, [*proof, root], root)
    assert not inclusion_holds(leaf, size, size, proof, root)
    assert not inclusion_holds(leaf, index, size, proof, leaf_hash(root))
    if proof:
        assert not inclusion_holds(leaf, index, size, proof[:-1], root)


def consistency_holds(old: int, new: int, proof: list[bytes], old_root: bytes, new_root: bytes) -> bool:
    """As a client sees it."""
    try:
        check_consistent(SeenCheckpoint("log", old, old_root), SeenCheckpoint("log", new, new_root), proof)
    except CheckpointMismatch:
        return False
    return True


@given(leaves_of, st.data())
def test_every_consistency_proof_holds_and_no_altered_one_does(leaves: list[bytes], data: st.DataObject) -> None:
    new, tree = len(leaves), Tree(leaves)
    old = data.draw(st.integers(0, new))
    old_root, new_root = naive_root(leaves[:old]), naive_root(leaves)
    proof = tree.consistency(old, new)
    assert consistency_holds(old, new, proof, old_root, new_root)
    assert not consistency_holds(old, new, [*proof, new_root], old_root, new_root)
    assert not consistency_holds(old, new, proof, leaf_hash(old_root), new_root)
    if old not in {0, new}:
        assert not consistency_holds(old, new, proof, old_root, leaf_hash(new_root))
        assert not consistency_holds(old, new, proof[:-1], old_root, new_root)
        assert not consistency_holds(new, old, proof, new_root, old_root)


@given(leaves_of)
def test_a_proof_needs_only_completed_subtrees(leaves: list[bytes]) -> None:
    size, tree = len(leaves), Tree(leaves)
    wanted = {node for index in range(size) for part in inclusion_ranges(index, size) for node in range_nodes(part)}
    assert wanted <= tree.nodes.keys()
