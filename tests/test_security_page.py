"""The page on security against the program: every verdict has its row, and its sentence is one the program really says."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.secure import (
    Identity,
    ReplayCache,
    TrustStore,
    Verdict,
    VerdictKind,
    cms_seal,
    encrypt,
    new_identity,
    sign,
    verify,
)
from tests.secure import kit
from tests.secure.kit import ALICE, BOB, NOW, cpim, identity, judged

PAGE = (Path(__file__).parent.parent / "docs/topics/security.md").read_text(encoding="utf-8")
Example = Callable[[], Verdict]
EXAMPLES: dict[VerdictKind, Example] = {}


def example(kind: VerdictKind) -> Callable[[Example], Example]:
    """Register what leads to a verdict."""

    def register(make: Example) -> Example:
        EXAMPLES[kind] = make
        return make

    return register


def signed(obj: MimeObject | None = None, by: Identity | None = None) -> MimeObject:
    return sign(obj or cpim(), by or identity(), when=NOW)


@example(VerdictKind.VALID)
def _valid() -> Verdict:
    return judged(signed())


@example(VerdictKind.UNSIGNED)
def _unsigned() -> Verdict:
    return judged(cpim(), asserted_by="a.test")


@example(VerdictKind.BAD_SIGNATURE)
def _bad_signature() -> Verdict:
    obj = signed()
    return judged(MimeObject(obj.header_block, obj.octets.replace(b"\r\nhi", b"\r\nho")))


@example(VerdictKind.SIGNED_BY_OTHER)
def _signed_by_other() -> Verdict:
    return judged(signed(cpim(from_="im:carol@a.test")))


@example(VerdictKind.CHANGED)
def _changed() -> Verdict:
    kept = {ALICE.uri: frozenset({"ab" * 32})}
    return verify(signed(), kit.trust(contacts=kept), now=NOW)


@example(VerdictKind.UNTRUSTED)
def _untrusted() -> Verdict:
    return verify(signed(), TrustStore(), now=NOW)


@example(VerdictKind.REPLAYED)
def _replayed() -> Verdict:
    replay = ReplayCache()
    judged(signed(), replay=replay)
    return judged(signed(), replay=replay)


@example(VerdictKind.STALE)
def _stale() -> Verdict:
    return judged(signed(cpim(when=NOW - timedelta(minutes=40))))


@example(VerdictKind.FUTURE)
def _future() -> Verdict:
    return judged(signed(cpim(when=NOW + timedelta(minutes=10))))


@example(VerdictKind.NO_FRESHNESS)
def _no_freshness() -> Verdict:
    return judged(signed(cpim(when=None)))


@example(VerdictKind.ENVELOPE_MISMATCH)
def _envelope_mismatch() -> Verdict:
    return judged(signed(), expected_from="im:carol@a.test")


@example(VerdictKind.NOT_ADDRESSED)
def _not_addressed() -> Verdict:
    return judged(signed(), expected_to="im:carol@a.test")


@example(VerdictKind.HEADERS_UNPROTECTED)
def _headers_unprotected() -> Verdict:
    return judged(signed(MimeObject.of("text/plain", b"hi")))


@example(VerdictKind.AMBIGUOUS_SENDER)
def _ambiguous_sender() -> Verdict:
    raw = CpimMessage.parse(cpim().octets).raw.replace(b"From: ", b"From: <im:carol@a.test>\r\nFrom: ", 1)
    return judged(MimeObject.of("message/cpim", raw))


@example(VerdictKind.VALID_WEAK)
def _valid_weak() -> Verdict:
    key = rsa.generate_private_key(65537, 1024)
    weak = Identity(ALICE, key, (kit.ca().issue(ALICE, key.public_key(), when=NOW),))
    return judged(kit.forged(cpim().entity, weak))


@example(VerdictKind.NOT_CHECKED)
def _not_checked() -> Verdict:
    obj = signed()
    return judged(MimeObject.of(obj.content_type.replace("pkcs7", "x-other"), obj.octets.replace(b"pkcs7", b"x-other")))


@example(VerdictKind.ENCRYPTED)
def _encrypted() -> Verdict:
    return judged(encrypt(signed(), [identity(BOB).certificate]))


@example(VerdictKind.NO_KEY)
def _no_key() -> Verdict:
    return judged(encrypt(signed(), [identity(BOB).certificate]), keys=(new_identity(BOB, when=NOW),))


@example(VerdictKind.CANNOT_DECRYPT)
def _cannot_decrypt() -> Verdict:
    obj = encrypt(signed(), [identity(BOB).certificate])
    return judged(MimeObject(obj.header_block, obj.octets[:-1] + bytes([obj.octets[-1] ^ 1])), keys=(identity(BOB),))


@example(VerdictKind.DECRYPTED_UNAUTHENTICATED)
def _decrypted_unauthenticated() -> Verdict:
    # ``encrypt`` refuses to write this.
    octets = cms_seal.seal(cpim().entity, [identity(BOB).certificate], cipher="aes-128-cbc")
    return judged(MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", octets), keys=(identity(BOB),))


@example(VerdictKind.MALFORMED)
def _malformed() -> Verdict:
    return judged(MimeObject.of("message/cpim", b"From alice\r\n\r\n\r\nhi"))


def rows(heading: str, following: str) -> list[tuple[str, str]]:
    table = PAGE.split(f"\n## {heading}\n")[1].split(f"\n## {following}\n")[0]
    return re.findall(r"^\| `([a-z-]+)` \| ([^|]*[^| ]) \|", table, re.MULTILINE)


def test_every_verdict_has_one_row_that_says_what_to_do() -> None:
    assert sorted(name for name, _ in rows("What you see", "What it says")) == sorted(VerdictKind)


def test_every_verdict_but_that_of_gateways_has_its_sentence() -> None:
    assert {name for name, _ in rows("What it says", "Keys and people")} == set(VerdictKind) - {VerdictKind.TRANSLATED}


@pytest.mark.parametrize(("name", "sentence"), rows("What it says", "Keys and people"))
def test_the_sentence_is_what_the_program_says(name: str, sentence: str) -> None:
    verdict = EXAMPLES[VerdictKind(name)]()
    said = re.sub(r"\b[0-9a-f]{16}\b", "…", verdict.reason)
    assert (verdict.verdict, said) == (name, sentence)
