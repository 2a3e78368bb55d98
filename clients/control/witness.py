# Being a witness: what a client checks of the audit log's checkpoints, without trusting the server.
"""A client pins the log's key and the last checkpoint that it saw. With every later one it asks for a consistency proof
and checks that what it saw is the beginning of what there is now. So nobody can rewrite or cut the log behind this
client's back, not even with the database and the key in hand."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clients.control.errors import ApiError

_ED25519 = b"\x01"
_EMPTY_ROOT = hashlib.sha256(b"").digest()


class CheckpointMismatch(ApiError):
    """The log contradicts a checkpoint that this client had seen, or is not signed by the key that it pinned."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            code="audit.checkpoint_mismatch",
            exit_code=8,
            hint="keep the context file: it is evidence; let someone with the database run tritonctl audit verify",
        )


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """The first `size` entries of the log `origin` have the Merkle root `root`, says its signer."""

    origin: str
    size: int
    root: bytes


def open_checkpoint(note: str, key: str) -> SeenCheckpoint:
    """Read a signed checkpoint; `key` is the log's verifier key (`NAME+KEYID+BASE64`). Raises CheckpointMismatch unless
    that key signed it."""
    name, key_id, public_key = _parse_key(key)
    text, gap, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines() if gap else ():
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        signature = _decode(encoded)
        if dash == "—" and signer == name and signature[:4] == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(public_key).verify(signature[4:], text.encode())
            except InvalidSignature:
                raise CheckpointMismatch(f"the signature of {name} on the checkpoint is false") from None
            return _parse(text, name)
    raise CheckpointMismatch(f"the checkpoint is not signed by the key {key}")


def check_consistent(pinned: SeenCheckpoint, new: SeenCheckpoint, proof: Sequence[bytes]) -> None:
    """Raise CheckpointMismatch unless `pinned` is the beginning of `new`. `proof` is what the server gave for the two
    sizes; none is needed when they are equal."""
    if new.origin != pinned.origin:
        raise CheckpointMismatch(f"this is another log: {new.origin!r}, not {pinned.origin!r}")
    if new.size < pinned.size:
        raise CheckpointMismatch(
            f"the audit log was cut: it had {pinned.size} entries when this client last looked, and now {new.size}"
        )
    if not _consistent(pinned.size, new.size, proof, pinned.root, new.root):
        raise CheckpointMismatch(
            f"the audit log was rewritten: its first {pinned.size} entries are not those that this client saw"
        )


def _consistent(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """RFC 9162 §2.1.4.2, where 0 <= old <= new."""
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == _EMPTY_ROOT
    if not proof:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = _join(sibling, first), _join(sibling, second)
            while not node & 1 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            second = _join(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _parse(text: str, name: str) -> SeenCheckpoint:
    lines = text.split("\n")
    root = _decode(lines[2]) if len(lines) >= 4 else b""
    if len(root) != 32 or not lines[1].isascii() or not lines[1].isdecimal():
        raise CheckpointMismatch(f"what {name} signed is not a checkpoint")
    return SeenCheckpoint(lines[0], int(lines[1]), root)


def _parse_key(key: str) -> tuple[str, bytes, bytes]:
    name, _, rest = key.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    data = _decode(encoded)
    expected = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    if len(data) != 33 or data[:1] != _ED25519 or expected.hex() != key_id:
        raise CheckpointMismatch(f"{key!r} is not a verifier key (NAME+KEYID+BASE64)")
    return name, expected, data[1:]


def _decode(text: str) -> bytes:
    """Empty for what is not base64, which no length check lets pass."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
