# A client as a witness, against published vectors and against the control plane's own tree.
from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.control.witness import CheckpointMismatch, SeenCheckpoint, check_consistent, open_checkpoint
from controlplane.domain.checkpoints import sign_checkpoint
from controlplane.domain.merkle import Frontier, Node, consistency_ranges, leaf_hash, range_hash
from controlplane.domain.notes import Signer

SIGNER = Signer.generate("log.example/one")
KEY = str(SIGNER.verifier)

# Certificate Transparency's reference tree of eight leaves.
ROOTS = {
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
PROOFS = {
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


def seen(size: int, root: bytes, origin: str = "log.example/one") -> SeenCheckpoint:
    return SeenCheckpoint(origin, size, root)


@pytest.mark.parametrize("sizes", PROOFS)
def test_published_proofs_hold(sizes: tuple[int, int]) -> None:
    old, new = (seen(size, bytes.fromhex(ROOTS[size])) for size in sizes)
    proof = [bytes.fromhex(node) for node in PROOFS[sizes]]
    check_consistent(old, new, proof)
    for altered in (proof[:-1], [*proof, proof[0]], proof[::-1], []):
        with pytest.raises(CheckpointMismatch, match="was rewritten"):
            check_consistent(old, new, altered)


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=60), st.data())
def test_every_proof_of_the_control_plane_holds_and_a_forked_log_is_seen(
    leaves: list[bytes], data: st.DataObject
) -> None:
    old = data.draw(st.integers(0, len(leaves)))
    nodes: dict[Node, bytes] = {}
    tree, roots = Frontier(), []
    for index, leaf in enumerate(leaves):
        roots.append(tree.root())
        nodes[0, index] = leaf_hash(leaf)
        nodes |= dict(tree.append(nodes[0, index]))
    roots.append(tree.root())
    proof = [range_hash(subtree, nodes) for subtree in consistency_ranges(old, len(leaves))]
    pinned, new = seen(old, roots[old]), seen(len(leaves), tree.root())
    check_consistent(pinned, new, proof)
    with pytest.raises(CheckpointMismatch, match="was rewritten"):
        check_consistent(seen(old, leaf_hash(roots[old])), new, proof)


def test_a_log_that_shrank_is_seen() -> None:
    with pytest.raises(CheckpointMismatch, match="it had 8 entries when this client last looked, and now 5"):
        check_consistent(seen(8, b"8" * 32), seen(5, b"5" * 32), [])


def test_another_log_is_seen() -> None:
    with pytest.raises(CheckpointMismatch, match="this is another log"):
        check_consistent(seen(1, b"1" * 32), seen(1, b"1" * 32, "log.example/two"), [])


def test_a_signed_checkpoint_opens_with_the_pinned_key() -> None:
    signed = sign_checkpoint(SIGNER, 7, b"r" * 32)
    assert open_checkpoint(signed.note, KEY) == seen(7, b"r" * 32)
    another = Signer.generate("witness").sign("x\n").rpartition("\n\n")[2]
    assert open_checkpoint(signed.note + another, KEY) == seen(7, b"r" * 32)


def test_what_the_pinned_key_did_not_sign_is_refused() -> None:
    note = sign_checkpoint(SIGNER, 7, b"r" * 32).note
    impostor = sign_checkpoint(Signer.generate("log.example/one"), 7, b"r" * 32).note
    root = base64.b64encode(b"r" * 32).decode()
    for altered, reason in [
        (note.replace("\n7\n", "\n8\n"), "is false"),
        (impostor, "is not signed by the key"),
        (note.partition("\n\n")[0] + "\n", "is not signed by the key"),
        ("", "is not signed by the key"),
        (SIGNER.sign(f"log.example/one\nmany\n{root}\n"), "is not a checkpoint"),
        (SIGNER.sign("log.example/one\n7\ncm9vdA==\n"), "is not a checkpoint"),
    ]:
        with pytest.raises(CheckpointMismatch, match=reason):
            open_checkpoint(altered, KEY)


def test_a_key_that_cannot_be_one_is_refused() -> None:
    for key in ("", "a+b", KEY[:-4], KEY.replace("log.example/one", "log.example/two")):
        with pytest.raises(CheckpointMismatch, match="is not a verifier key"):
            open_checkpoint(sign_checkpoint(SIGNER, 7, b"r" * 32).note, key)
