# Signed notes against the published examples of the format.
from __future__ import annotations

import pytest

from controlplane.domain.notes import Signer, Verifier, open_note
from controlplane.errors import IntegrityError, InvalidInput

# The example of golang.org/x/mod/sumdb/note, made to be published.
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = TEXT + (
    "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_private_key_reads_signs_and_writes_as_published() -> None:
    signer = Signer.parse(PRIVATE + "\n")
    assert str(signer.verifier) == PUBLIC
    assert signer.sign(TEXT) == NOTE
    assert signer.private_text() == PRIVATE


def test_a_published_note_opens_with_the_published_key() -> None:
    verifier = Verifier.parse(PUBLIC)
    assert open_note(NOTE, [verifier]) == (TEXT, verifier)


def test_a_made_key_survives_its_text() -> None:
    signer = Signer.generate("log.example/one")
    again = Signer.parse(signer.private_text())
    assert again.verifier == signer.verifier == Verifier.parse(str(signer.verifier))


def test_a_second_unknown_signature_is_ignored() -> None:
    other = Signer.generate("other").sign(TEXT).rpartition("\n\n")[2]
    verifier = Verifier.parse(PUBLIC)
    assert open_note(NOTE + other, [verifier]) == (TEXT, verifier)


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (NOTE.replace("your problem,", "our problem,"), "the signature of PeterNeumann is false"),
        (TEXT, "this is not a signed note: there is no signature after a blank line"),
        (TEXT + "\n", "this is not a signed note: there is no signature after a blank line"),
        (TEXT + "\n- PeterNeumann x08go\n", "this is not a signed note: '- PeterNeumann x08go' is not a signature"),
        (TEXT + "\n— PeterNeumann x08g!\n", "this is not a signed note: 'x08g!' is not base64"),
        (Signer.generate("other").sign(TEXT), f"no known key signed this note (known: {PUBLIC})"),
    ],
)
def test_a_note_that_is_not_the_signers_is_refused(note: str, reason: str) -> None:
    with pytest.raises(IntegrityError) as refusal:
        open_note(note, [Verifier.parse(PUBLIC)])
    assert refusal.value.message == reason


def test_a_private_key_is_never_repeated_in_an_error() -> None:
    for broken in (PRIVATE[:-4], PRIVATE.replace("c74f20a3", "c74f20a4"), PRIVATE.removeprefix("PRIVATE+KEY+")):
        with pytest.raises(InvalidInput) as refusal:
            Signer.parse(broken)
        assert "AYEKFALV" not in str(refusal.value)


def test_a_verifier_key_with_another_id_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not fit its key id"):
        Verifier.parse(PUBLIC.replace("c74f20a3", "c74f20a4"))


def test_a_key_name_with_a_space_or_plus_is_refused() -> None:
    for name in ("a b", "a+b", ""):
        with pytest.raises(InvalidInput, match="may not hold"):
            Signer.generate(name)
