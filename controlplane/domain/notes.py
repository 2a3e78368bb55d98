# C2SP signed notes with Ed25519: a text, a blank line, and signature lines.
"""Keys are one line of text, in the encodings of golang.org/x/mod/sumdb/note, which C2SP took over: a verifier key
`NAME+KEYID+BASE64` to hand out, and `PRIVATE+KEY+NAME+KEYID+BASE64` to keep."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controlplane.errors import IntegrityError, InvalidInput

_ED25519 = b"\x01"
_NAME = re.compile(r"[^\s+]+")
_SIGNATURE = re.compile(r"— (\S+) (\S+)")
_PRIVATE = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name that it signs under."""

    name: str
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Raises InvalidInput."""
        name, key_id, key = _parse_key(text.strip(), "verifier key")
        verifier = cls(name, key)
        if verifier.key_id.hex() != key_id:
            raise InvalidInput(f"the verifier key {text.strip()!r} does not fit its key id", hint="copy it whole")
        return verifier

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    def signed(self, text: str, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key with the name that it signs under. Its text never appears in a repr, a log or an error."""

    def __init__(self, name: str, seed: bytes) -> None:
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(f"the key name {name!r} may not hold spaces or plus signs")
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Signer:
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Raises InvalidInput, which does not repeat the key."""
        stripped = text.strip()
        if not stripped.startswith(_PRIVATE):
            raise InvalidInput("this is not a private note key", hint=f"it begins with {_PRIVATE}")
        name, key_id, seed = _parse_key(stripped.removeprefix(_PRIVATE), None)
        signer = cls(name, seed)
        if signer.verifier.key_id.hex() != key_id:
            raise InvalidInput("the private note key does not fit its key id", hint="restore the file from a backup")
        return signer

    def private_text(self) -> str:
        """What `parse` reads. A secret."""
        key = base64.b64encode(_ED25519 + self._seed).decode()
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.key_id.hex()}+{key}"

    def sign(self, text: str) -> str:
        """The signed note; `text` ends with a newline."""
        assert text.endswith("\n")
        signature = base64.b64encode(self.verifier.key_id + self._key.sign(text.encode())).decode()
        return f"{text}\n— {self.verifier.name} {signature}\n"


def open_note(note: str, verifiers: Sequence[Verifier]) -> tuple[str, Verifier]:
    """The note's text and who of `verifiers` signed it. Signatures by other keys are ignored, as the format asks; a
    false signature by a known key, or none, raises IntegrityError."""
    text, gap, lines = note.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise IntegrityError("this is not a signed note: there is no signature after a blank line")
    text += "\n"
    signer = None
    for line in lines.removesuffix("\n").split("\n"):
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise IntegrityError(f"this is not a signed note: {line[:100]!r} is not a signature")
        signature = _decode(match[2])
        for verifier in verifiers:
            if verifier.name == match[1] and signature[:4] == verifier.key_id:
                if not verifier.signed(text, signature[4:]):
                    raise IntegrityError(f"the signature of {verifier.name} is false")
                signer = signer or verifier
    if signer is None:
        known = ", ".join(str(verifier) for verifier in verifiers) or "none"
        raise IntegrityError(f"no known key signed this note (known: {known})", hint="give the log's verifier key")
    return text, signer


def _parse_key(text: str, secret_unless: str | None) -> tuple[str, str, bytes]:
    """name, key id, key; `secret_unless` names the kind of key in the error, which then repeats it."""
    shown = f"the {secret_unless} {text!r}" if secret_unless else "the private note key"
    name, plus, rest = text.partition("+")
    key_id, plus_again, encoded = rest.partition("+")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if not plus or not plus_again or _NAME.fullmatch(name) is None or len(key) != 33 or key[:1] != _ED25519:
        raise InvalidInput(f"{shown} cannot be read", hint="an Ed25519 note key is NAME+KEYID+BASE64")
    return name, key_id, key[1:]


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise IntegrityError(f"this is not a signed note: {text[:100]!r} is not base64") from None
