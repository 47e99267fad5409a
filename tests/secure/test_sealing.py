"""``encrypt`` and ``decrypt`` on whole MIME entities (RFC 8551 section 3.3); SEC-10, SEC-15, SEC-16, SEC-20, M-28, M-33."""

from __future__ import annotations

from functools import partial

import pytest

from comity.cpim.entity import signed_part
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import Identity, VerdictKind, cms_seal, decrypt, encrypt, sealing, sign, verify
from comity.secure.evidence import DecryptionFailed, NoKey
from comity.secure.identity import KeyKind
from tests.secure import kit
from tests.secure.costs import times_dearer
from tests.secure.damage import flipped, secret_places
from tests.secure.kit import NOW

ALICE, BOB = kit.identity(), kit.identity(kit.BOB, "ed25519")
TO_BOB = [BOB.decryption_keys[0].certificate]


def test_the_type_names_what_is_inside_and_the_octets_are_binary() -> None:
    """RFC 8551 section 3.2.1, SEC-15."""
    obj = encrypt(kit.cpim(), TO_BOB)
    assert obj.content_type == "application/pkcs7-mime; smime-type=authEnveloped-data; name=smime.p7m"
    assert obj.header("content-transfer-encoding") == "binary"
    assert obj.octets[:1] == b"\x30"
    assert decrypt(obj, [BOB]).entity == kit.cpim().entity


def test_base64_is_read_and_written_on_request() -> None:
    obj = encrypt(kit.cpim(), TO_BOB, encoding="base64")
    assert max(map(len, obj.octets.split(b"\r\n"))) <= 76
    assert decrypt(obj.entity, [BOB]).entity == kit.cpim().entity


@pytest.mark.parametrize("kind", ["application/x-pkcs7-mime", "application/pkcs7-mime", "Application/PKCS7-MIME"])
def test_the_old_type_and_a_missing_smime_type_are_read(kind: str) -> None:
    obj = MimeObject.of(kind, encrypt(kit.cpim(), TO_BOB).octets)
    assert decrypt(obj, [BOB]).entity == kit.cpim().entity


@pytest.mark.parametrize("signer", [ALICE, kit.identity(kit.ALICE, "ed25519")], ids=["p256", "ed25519"])
def test_signed_first_then_encrypted(signer: Identity) -> None:
    """SEC-16: the signature stands inside, over the entity as it was."""
    obj = encrypt(kit.cpim(), TO_BOB, signer=signer, when=NOW)
    inside = decrypt(obj, [BOB]).entity
    verdict = verify(inside, kit.trust(), now=NOW)
    assert verdict.verdict is VerdictKind.VALID
    assert verdict.content is not None
    assert verdict.content.entity == kit.cpim().entity
    with pytest.raises(SecurityError, match="needs a time"):
        encrypt(kit.cpim(), TO_BOB, signer=signer)


def test_encrypted_first_then_signed_is_read_too() -> None:
    """SEC-16: any order."""
    outer = sign(encrypt(kit.cpim(), TO_BOB), ALICE, when=NOW)
    assert decrypt(signed_part(outer), [BOB]).entity == kit.cpim().entity


def test_without_a_key_nothing_opens() -> None:
    with pytest.raises(NoKey):
        decrypt(encrypt(kit.cpim(), TO_BOB), [ALICE])


@pytest.mark.parametrize("inside", [b"", b"no header", b"\r\nno type", b"Subject: x\r\n\r\nno type"])
@pytest.mark.parametrize("cipher", ["aes-128-gcm", "aes-128-cbc"])
def test_what_is_no_entity_inside_fails_as_a_wrong_key_does(inside: bytes, cipher: str) -> None:
    """M-33: the one text, also when only the content is wrong."""
    obj = MimeObject.of("application/pkcs7-mime", cms_seal.seal(inside, TO_BOB, cipher=cipher))
    with pytest.raises(DecryptionFailed, match=r"^The object cannot be decrypted\.$"):
        decrypt(obj, [BOB])


@pytest.mark.parametrize(
    "obj",
    [
        kit.cpim(),
        MimeObject.of("application/pkcs7-mime", b"\x30\x03\x02\x01\x01"),
        MimeObject.of("application/pkcs7-mime", b""),
        sign(kit.cpim(), ALICE, when=NOW, form="signed-data"),
        b"no header",
    ],
    ids=["plain", "not CMS", "empty", "signed", "no entity"],
)
def test_what_is_not_encrypted_is_malformed(obj: MimeObject | bytes) -> None:
    with pytest.raises(MalformedMessage):
        decrypt(obj, [BOB])


class TestChoice:
    """RFC 8551 section 2.7.1 and 2.7.3, SEC-20."""

    def test_of_whom_nothing_is_known_gets_aes_256_gcm(self) -> None:
        """Rule 2."""
        assert decrypt(encrypt(kit.cpim(), TO_BOB), [BOB]).algorithm == "aes-256-gcm"

    def test_the_first_of_the_list_that_we_write_is_taken(self) -> None:
        """Rule 1: "the capability most preferred by the intended recipient"."""
        known = [("chacha20-poly1305", "aes-128-gcm", "aes-256-gcm")]
        assert decrypt(encrypt(kit.cpim(), TO_BOB, capabilities=known), [BOB]).algorithm == "aes-128-gcm"

    def test_several_recipients_get_what_all_of_them_read(self) -> None:
        assert sealing.choose_cipher([("aes-256-gcm", "aes-128-gcm"), ("aes-128-gcm",)]) == "aes-128-gcm"
        assert sealing.choose_cipher([("aes-128-gcm", "aes-128-cbc"), ()]) == "aes-128-gcm"

    def test_recipients_with_nothing_in_common_are_refused(self) -> None:
        """Section 2.7.3: never the same message strong for one and weak for another."""
        for lists in ([("aes-128-cbc",), ()], [("des-ede3-cbc",)], [("aes-128-gcm",), ("aes-128-cbc",)]):
            with pytest.raises(SecurityError, match="no cipher in common"):
                sealing.choose_cipher(lists)

    def test_cbc_goes_only_around_a_signature(self) -> None:
        """M-28: what anybody could change on the way is not sent without one."""
        known = [("aes-128-cbc", "des-ede3-cbc")]
        with pytest.raises(SecurityError, match="unless it is signed"):
            encrypt(kit.cpim(), TO_BOB, capabilities=known)
        obj = encrypt(kit.cpim(), TO_BOB, capabilities=known, signer=ALICE, when=NOW)
        assert "smime-type=enveloped-data" in obj.content_type
        opened = decrypt(obj, [BOB])
        assert (opened.algorithm, opened.is_authenticated) == ("aes-128-cbc", False)
        assert verify(opened.entity, kit.trust(), now=NOW).is_valid


def test_what_is_no_entity_is_not_encrypted() -> None:
    for raw in (b"text", b"\r\ntext"):
        with pytest.raises(SecurityError, match="cannot be encrypted"):
            encrypt(raw, TO_BOB)


@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
def test_an_unreadable_entity_inside_takes_as_long_as_a_wrong_key(kind: KeyKind) -> None:
    """M-33, as the caller of ``decrypt`` sees it: the wrapped key, the tag and what is inside wrong, in turn."""
    me = kit.identity(kit.ALICE, kind)
    recipients = [me.decryption_keys[0].certificate]
    good, noise = (
        cms_seal.seal(entity, recipients) for entity in (b"Content-Type: a/b\r\n\r\n" + bytes(99_979), bytes(100_000))
    )
    places = secret_places(good)
    wrong = {"inside": noise, "tag": flipped(good, places["tag"][0]), "key": flipped(good, places["key"][9])}

    def attempt(octets: bytes) -> None:
        with pytest.raises(DecryptionFailed):
            decrypt(MimeObject.of("application/pkcs7-mime", octets), [me])

    ratio, costs = times_dearer({which: partial(attempt, octets) for which, octets in wrong.items()}, limit=1.5)
    assert ratio < 1.5, costs
