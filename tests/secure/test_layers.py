"""``verify`` with keys: signed, encrypted and compressed in any order (SEC-16; RFC 8551 section 3.7; reliability.md T9)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from datetime import timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Reason
from comity.secure import (
    Identity,
    IdentityMatch,
    LayerKind,
    ReplayCache,
    TrustStore,
    Verdict,
    VerdictKind,
    ber,
    cms,
    cms_keys,
    cms_seal,
    encrypt,
    new_identity,
    sign,
    verify,
)
from comity.secure.verifying import MAX_LAYERS
from tests.secure import kit
from tests.secure.kit import ALICE, BOB, EVE, FORMS, NOW, Form, cpim, identity, judged

GCM, CBC = "encrypted, aes-256-gcm, authenticated", "encrypted, aes-128-cbc, not authenticated"
BY_ALICE, BY_EVE = "signed by im:alice@a.test", "signed by im:eve@e.test"
TEXT = MimeObject.of("text/plain; charset=utf-8", b"hi")


def bob() -> Identity:
    return identity(BOB)


def opened(obj: MimeObject | bytes, **more: object) -> Verdict:
    """What Bob, with his key, says of it."""
    return judged(obj, keys=(bob(),), **more)


def sealed(obj: MimeObject | bytes, *to: Identity, cipher: str = "") -> MimeObject:
    return encrypt(obj, [one.certificate for one in to or (bob(),)], cipher=cipher)


def sealed_cbc(obj: MimeObject, *to: Identity) -> MimeObject:
    """Unauthenticated, which our own ``encrypt`` refuses around what is not signed."""
    raw = cms_seal.seal(obj.entity, [one.certificate for one in to or (bob(),)], cipher="aes-128-cbc")
    return MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", raw)


def compressed(obj: MimeObject | bytes) -> MimeObject:
    raw = obj if isinstance(obj, bytes) else obj.entity
    content = ber.sequence(ber.oid(cms.ID_DATA), ber.tlv(0xA0, ber.octet_string(zlib.compress(raw))))
    algorithm = ber.sequence(ber.oid("1.2.840.113549.1.9.16.3.8"))
    inner = ber.sequence(ber.integer(0), algorithm, content)
    info = ber.sequence(ber.oid(cms_keys.ID_COMPRESSED_DATA), ber.tlv(0xA0, inner))
    return MimeObject.of("application/pkcs7-mime; smime-type=compressed-data; name=smime.p7z", info)


def signed(obj: MimeObject, who: Identity | None = None, form: Form = "multipart") -> MimeObject:
    return sign(obj, who or identity(), when=NOW, form=form)


def layers(verdict: Verdict) -> list[str]:
    return [str(layer) for layer in verdict.layers]


class TestOrders:
    """SEC-16: both orders are read, and the verdict shows which it was."""

    @pytest.mark.parametrize("form", FORMS)
    def test_signed_then_encrypted(self, form: Form) -> None:
        verdict = opened(sealed(signed(cpim(), form=form)))
        assert (verdict.verdict, verdict.signer, verdict.content) == (VerdictKind.VALID, "im:alice@a.test", cpim())
        assert layers(verdict) == [GCM, BY_ALICE]
        assert verdict.reason == "im:alice@a.test signed the whole message, which came encrypted."
        assert (verdict.identity, verdict.is_encrypted, verdict.covers_whole) == (IdentityMatch.MATCH, True, True)
        assert verdict.covered_sha256 == hashlib.sha256(cpim().entity).hexdigest()
        assert verdict.covered_octets == len(cpim().entity)

    @pytest.mark.parametrize("form", FORMS)
    def test_encrypted_then_signed(self, form: Form) -> None:
        """What is covered is the encrypted entity; the content is what came out of it."""
        inner = sealed(cpim())
        verdict = opened(signed(inner, form=form))
        assert (verdict.verdict, verdict.signer, verdict.content) == (VerdictKind.VALID, "im:alice@a.test", cpim())
        assert layers(verdict) == [BY_ALICE, GCM]
        assert verdict.covered_sha256 == hashlib.sha256(inner.entity).hexdigest()

    def test_triple_wrap(self) -> None:
        verdict = opened(signed(sealed(signed(cpim())), form="signed-data"))
        assert (verdict.verdict, verdict.content) == (VerdictKind.VALID, cpim())
        assert layers(verdict) == [BY_ALICE, GCM, BY_ALICE]

    def test_compressed_inside_and_outside(self) -> None:
        """SEC-40: compressed then signed, and the other way round."""
        for obj, expected in (
            (sealed(signed(compressed(cpim()))), [GCM, BY_ALICE, "compressed"]),
            (sealed(compressed(signed(cpim()))), [GCM, "compressed", BY_ALICE]),
            (compressed(sealed(signed(cpim()))), ["compressed", GCM, BY_ALICE]),
        ):
            verdict = opened(obj)
            assert (verdict.verdict, verdict.content) == (VerdictKind.VALID, cpim()), verdict.reason
            assert layers(verdict) == expected

    def test_a_signed_message_with_encrypted_unauthenticated_transport_is_valid(self) -> None:
        """M-28: an inner signature over the whole stands in for the missing tag."""
        verdict = opened(sealed_cbc(signed(cpim())))
        assert (verdict.verdict, verdict.content) == (VerdictKind.VALID, cpim())
        assert layers(verdict) == [CBC, BY_ALICE]

    def test_encrypted_twice(self) -> None:
        assert layers(opened(sealed(sealed(signed(cpim()))))) == [GCM, GCM, BY_ALICE]
        for obj in (
            sealed_cbc(sealed(signed(cpim()))),
            sealed(sealed_cbc(signed(cpim()))),
            sealed_cbc(compressed(signed(cpim()))),
        ):
            verdict = opened(obj)
            assert (verdict.verdict, verdict.content) == (VerdictKind.VALID, cpim()), verdict.reason
        for obj in (sealed_cbc(sealed(cpim())), sealed(sealed_cbc(cpim())), sealed_cbc(compressed(cpim()))):
            assert opened(obj).verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED

    def test_json_shows_the_order(self) -> None:
        found = opened(sealed(signed(cpim()))).to_json()
        assert (found["layers"], found["encrypted"]) == ([GCM, BY_ALICE], True)


class TestUnsigned:
    def test_encrypted_and_not_signed_is_unsigned(self) -> None:
        verdict = opened(sealed(cpim()), asserted_by="gw.example")
        assert (verdict.verdict, verdict.signer, verdict.content) == (VerdictKind.UNSIGNED, "", cpim())
        assert (verdict.is_encrypted, verdict.asserted_by) == (True, "gw.example")

    @pytest.mark.parametrize(
        "inside",
        [cpim(), TEXT, MimeObject.of("text/html", b'<img src="http://e.test/'), MimeObject.of("multipart/signed", b"")],
        ids=["message", "text", "html", "broken"],
    )
    def test_encrypted_without_authentication_and_not_signed_is_kept_back(self, inside: MimeObject) -> None:
        """M-28."""
        verdict = opened(sealed_cbc(inside))
        assert verdict.verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED
        assert (verdict.content, verdict.from_, verdict.covered_sha256) == (None, "", "")
        assert layers(verdict) == ["encrypted, not authenticated"]
        assert verdict.refusal is Reason.DECRYPTION

    def test_a_signature_outside_does_not_stand_in_for_the_tag(self) -> None:
        """M-28: whoever cannot read it can change it and sign the result."""
        verdict = opened(signed(sealed_cbc(cpim("im:eve@e.test")), identity(EVE)))
        assert (verdict.verdict, verdict.content) == (VerdictKind.DECRYPTED_UNAUTHENTICATED, None)
        assert layers(verdict) == [BY_EVE, "encrypted, not authenticated"]
        assert (verdict.signer, verdict.certificate, verdict.fingerprint, verdict.covered_sha256) == ("", b"", "", "")

    def test_a_signed_text_in_an_unauthenticated_message_is_kept_back(self) -> None:
        """M-28: the signature has to cover the whole of what was encrypted."""
        message = CpimMessage.build(
            from_="im:alice@a.test",
            to="im:bob@b.test",
            content=signed(TEXT).octets,
            content_type=signed(TEXT).content_type,
        )
        obj = MimeObject.of("message/cpim", message.raw)
        assert opened(sealed_cbc(obj)).verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED
        assert opened(sealed(obj)).verdict is VerdictKind.HEADERS_UNPROTECTED


class TestKeys:
    def test_without_keys_it_is_only_named(self) -> None:
        verdict = judged(sealed(signed(cpim())), asserted_by="gw.example")
        assert (verdict.verdict, verdict.is_encrypted) == (VerdictKind.ENCRYPTED, True)
        assert (verdict.content, verdict.asserted_by, verdict.refusal) == (None, "gw.example", None)

    def test_a_signature_outside_is_told_without_keys(self) -> None:
        inner = sealed(cpim())
        verdict = judged(signed(inner))
        assert (verdict.verdict, verdict.signer, verdict.content) == (VerdictKind.ENCRYPTED, "im:alice@a.test", inner)
        assert verdict.identity is IdentityMatch.NOT_COVERED
        assert judged(signed(inner, new_identity(ALICE, when=NOW))).verdict is VerdictKind.UNTRUSTED

    def test_for_others(self) -> None:
        verdict = judged(sealed(signed(cpim())), keys=(identity(EVE),))
        assert (verdict.verdict, verdict.refusal) == (VerdictKind.NO_KEY, Reason.DECRYPTION)

    @pytest.mark.parametrize("at", [-1, -16, -40, -200])
    def test_what_does_not_open_says_one_thing(self, at: int) -> None:
        """M-27, M-30, M-33."""
        obj = sealed(signed(cpim()))
        octets = bytearray(obj.octets)
        octets[at] ^= 1
        verdict = opened(MimeObject(obj.header_block, bytes(octets)))
        assert (verdict.verdict, verdict.reason) == (VerdictKind.CANNOT_DECRYPT, "The object cannot be decrypted.")
        assert (verdict.content, verdict.refusal) == (None, Reason.DECRYPTION)

    def test_nothing_is_given_of_what_does_not_open_whoever_signed_it(self) -> None:
        obj = sealed(cpim())
        octets = bytearray(obj.octets)
        octets[-1] ^= 1
        verdict = opened(signed(MimeObject(obj.header_block, bytes(octets))))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.CANNOT_DECRYPT, "im:alice@a.test")
        assert (verdict.content, verdict.identity) == (None, IdentityMatch.NOT_COVERED)

    def test_a_broken_signature_outside_is_not_opened(self) -> None:
        obj = signed(sealed(cpim()))
        octets = obj.octets.replace(b"name=smime.p7m", b"name=smime.p7n", 1)
        verdict = opened(MimeObject(obj.header_block, octets))
        assert (verdict.verdict, verdict.layers) == (VerdictKind.BAD_SIGNATURE, ())

    def test_the_second_key_opens_and_ed25519_reads_by_its_companion(self) -> None:
        other = identity(BOB, "ed25519")
        obj = encrypt(signed(cpim()), [other.decryption_keys[0].certificate])
        assert judged(obj, keys=(bob(), other)).is_valid


class TestForwarding:
    """Surreptitious forwarding: who is addressed stands under the signature (RFC 8551 section 3.7, reliability.md T10)."""

    def test_what_was_signed_for_others_and_encrypted_again_for_us(self) -> None:
        """Eve got it from Alice and encrypts it again for Bob."""
        to_eve = signed(cpim(to="im:eve@e.test"))
        verdict = opened(sealed(to_eve))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.NOT_ADDRESSED, "im:alice@a.test")
        assert "im:bob@b.test" in verdict.reason
        assert opened(sealed(to_eve), expected_to=BOB).verdict is VerdictKind.NOT_ADDRESSED

    def test_the_sender_reads_her_own_copy(self) -> None:
        obj = sealed(signed(cpim()), bob(), identity())
        assert judged(obj, keys=(identity(),)).is_valid
        assert judged(obj, keys=(identity(),), expected_to=ALICE).verdict is VerdictKind.NOT_ADDRESSED

    def test_somebody_elses_signature_taken_off_and_put_on(self) -> None:
        """Eve signs what Alice encrypted: it says Alice inside."""
        verdict = opened(signed(sealed(cpim()), identity(EVE)))
        assert (verdict.verdict, verdict.signer, verdict.from_) == (
            VerdictKind.SIGNED_BY_OTHER,
            "im:eve@e.test",
            "im:alice@a.test",
        )

    def test_a_triple_wrap_with_another_signer_outside(self) -> None:
        """M-17."""
        verdict = opened(signed(sealed(signed(cpim())), identity(EVE)))
        assert (verdict.verdict, layers(verdict)) == (VerdictKind.SIGNED_BY_OTHER, [BY_EVE, GCM, BY_ALICE])

    def test_the_same_message_encrypted_anew_is_a_replay(self) -> None:
        """T10, SEC-25: encryption makes new octets of it, not a new message."""
        cache, inner = ReplayCache(), signed(cpim())
        assert opened(sealed(inner), replay=cache).is_valid
        assert opened(sealed(inner), replay=cache).verdict is VerdictKind.REPLAYED
        assert opened(inner, replay=cache).verdict is VerdictKind.REPLAYED

    def test_what_was_stored_encrypted_is_stale_later(self) -> None:
        obj, later = sealed(signed(cpim())), NOW + timedelta(hours=1)
        verdict = verify(obj, kit.trust(), now=later, keys=(bob(),))
        assert (verdict.verdict, verdict.freshness) == (VerdictKind.STALE, "old timestamp")


class TestContentOnly:
    """RFC 8591 section 9.1: protection inside a message/cpim whose headers have none (SEC-28)."""

    @staticmethod
    def around(obj: MimeObject, from_: str = "im:alice@a.test", to: str = "im:bob@b.test") -> MimeObject:
        header = obj.header_block.partition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode()
        return cpim(from_, to, content=obj.octets, content_type=header)

    def test_encrypted_content(self) -> None:
        verdict = opened(self.around(sealed(TEXT)))
        assert (verdict.verdict, verdict.from_, verdict.content) == (VerdictKind.UNSIGNED, "im:alice@a.test", TEXT)
        assert [layer.kind for layer in verdict.layers] == [LayerKind.UNPROTECTED, LayerKind.ENCRYPTED]

    def test_signed_and_encrypted_content(self) -> None:
        verdict = opened(self.around(sealed(signed(TEXT))))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.HEADERS_UNPROTECTED, "im:alice@a.test")
        assert (verdict.identity, verdict.covers_whole, verdict.content) == (IdentityMatch.NOT_COVERED, False, TEXT)
        other = opened(self.around(sealed(signed(TEXT)), "im:eve@e.test"))
        assert (other.verdict, other.identity) == (VerdictKind.SIGNED_BY_OTHER, IdentityMatch.OTHER)

    def test_a_whole_message_inside_another(self) -> None:
        inner = sealed(signed(cpim()))
        assert opened(self.around(inner)).verdict is VerdictKind.HEADERS_UNPROTECTED
        assert opened(self.around(inner, "im:eve@e.test")).verdict is VerdictKind.ENVELOPE_MISMATCH

    def test_an_unsigned_message_inside_another(self) -> None:
        """M-06: encrypted, the inner one is not more of its From's than the outer one."""
        same = opened(self.around(sealed(cpim())))
        assert (same.verdict, same.from_) == (VerdictKind.UNSIGNED, "im:alice@a.test")
        other = opened(self.around(sealed(cpim()), "im:eve@e.test"))
        assert (other.verdict, other.from_) == (VerdictKind.ENVELOPE_MISMATCH, "im:eve@e.test")

    def test_one_message_around_it_is_looked_into_and_no_more(self) -> None:
        twice = self.around(sealed(self.around(sealed(signed(TEXT)))))
        verdict = opened(twice)
        assert verdict.verdict is VerdictKind.UNSIGNED
        assert [layer.kind for layer in verdict.layers] == [LayerKind.UNPROTECTED, LayerKind.ENCRYPTED]

    def test_encrypted_content_not_opened_names_the_sender_outside(self) -> None:
        verdict = judged(self.around(sealed(TEXT)))
        assert (verdict.verdict, verdict.from_) == (VerdictKind.ENCRYPTED, "im:alice@a.test")

    def test_two_senders_outside(self) -> None:
        obj = self.around(signed(TEXT))
        twice = obj.octets.replace(b"To:", b"From: <im:eve@e.test>\r\nTo:", 1)
        assert judged(MimeObject.of("message/cpim", twice)).verdict is VerdictKind.AMBIGUOUS_SENDER

    def test_content_for_another_recipient(self) -> None:
        assert opened(self.around(sealed(signed(TEXT)), to="im:eve@e.test")).verdict is VerdictKind.NOT_ADDRESSED


class TestLimits:
    def test_layers_are_counted(self) -> None:
        """M-32: nesting ends; nothing is given of what lies deeper."""
        obj = cpim()
        for _ in range(MAX_LAYERS):
            obj = signed(obj)
        assert judged(obj).is_valid
        verdict = judged(signed(obj))
        assert (verdict.verdict, verdict.content) == (VerdictKind.MALFORMED, None)

    def test_signers_are_counted_over_all_layers(self) -> None:
        """M-26: no more paths are searched than one layer may ask for; four signers a layer, then twice as many."""
        for number, expected in ((1, VerdictKind.VALID), (4, VerdictKind.MALFORMED)):
            obj = cpim()
            for _ in range(3):
                obj = kit.forged(obj.entity, *[identity()] * number)
            assert judged(obj).verdict is expected

    def test_a_bomb_is_malformed(self) -> None:
        """M-32."""
        verdict = judged(compressed(MimeObject.of("text/plain", bytes(8 * 1024 * 1024)).entity))
        assert (verdict.verdict, verdict.content) == (VerdictKind.MALFORMED, None)

    def test_an_object_over_the_limit_is_malformed_unread(self) -> None:
        verdict = judged(MimeObject.of("multipart/signed", bytes(16 * 1024 * 1024 + 1)))
        assert "larger than" in verdict.reason

    def test_a_mebibyte_is_read(self) -> None:
        big = cpim(content=b"x" * 60_000, content_type="application/octet-stream")
        raw = big.octets + b"x" * 1024 * 1024
        obj = MimeObject.of("message/cpim", raw)
        assert opened(sealed(kit.forged(obj.entity, identity()))).is_valid


class TestChangedKeys:
    """T33: a key other than the one kept is announced."""

    KEPT = {"im:alice@a.test": frozenset({"00" * 32})}

    def test_another_key_of_a_trusted_authority(self) -> None:
        verdict = verify(signed(cpim()), kit.trust(contacts=self.KEPT), now=NOW)
        assert (verdict.verdict, verdict.signer, verdict.content) == (VerdictKind.CHANGED, "", cpim())
        assert (verdict.fingerprint, verdict.refusal) == (identity().fingerprint, Reason.SIGNATURE)
        assert identity().fingerprint[:16] in verdict.reason

    def test_another_key_of_nobody(self) -> None:
        signer = new_identity(ALICE, when=NOW)
        trust = TrustStore(contacts=self.KEPT)
        assert verify(signed(cpim(), signer), trust, now=NOW).verdict is VerdictKind.CHANGED
        assert verify(signed(cpim(), signer), TrustStore(), now=NOW).verdict is VerdictKind.UNTRUSTED

    def test_the_key_that_is_kept(self) -> None:
        kept = {"im:alice@a.test": frozenset({"00" * 32, identity().fingerprint})}
        assert verify(signed(cpim()), kit.trust(contacts=kept), now=NOW).is_valid

    def test_a_pin_is_the_users_own_word(self) -> None:
        trust = kit.trust(contacts=self.KEPT, pinned=(identity().certificate,))
        assert verify(signed(cpim()), trust, now=NOW).is_valid

    def test_a_worse_reason_goes_first(self) -> None:
        """An expired or distrusted certificate is not presented as a new one."""
        trust = kit.trust(contacts=self.KEPT, distrusted=frozenset({identity().fingerprint}))
        assert verify(signed(cpim()), trust, now=NOW).verdict is VerdictKind.UNTRUSTED

    def test_somebody_else_is_not_a_changed_key(self) -> None:
        trust = kit.trust(contacts=self.KEPT)
        assert verify(signed(cpim(), identity(EVE)), trust, now=NOW).verdict is VerdictKind.SIGNED_BY_OTHER

    def test_the_memory_is_asked_in_canonical_form(self) -> None:
        obj = signed(cpim("im:al%69ce@A.TEST"))
        assert verify(obj, kit.trust(contacts=self.KEPT), now=NOW).verdict is VerdictKind.CHANGED

    def test_content_only(self) -> None:
        obj = TestContentOnly.around(signed(TEXT))
        assert verify(obj, kit.trust(contacts=self.KEPT), now=NOW).verdict is VerdictKind.CHANGED


SHAPES: dict[str, Callable[[], MimeObject]] = {
    "signed": lambda: signed(cpim()),
    "signed-data": lambda: signed(cpim(), form="signed-data"),
    "encrypted": lambda: sealed(cpim()),
    "encrypted by cbc": lambda: sealed_cbc(cpim()),
    "signed then encrypted": lambda: sealed(signed(cpim(), form="signed-data")),
    "signed then encrypted by cbc": lambda: sealed_cbc(signed(cpim(), form="signed-data")),
    "encrypted then signed": lambda: signed(sealed(cpim()), form="signed-data"),
    "triple wrap": lambda: signed(sealed(signed(cpim(), form="signed-data")), form="signed-data"),
    "compressed": lambda: signed(compressed(cpim()), form="signed-data"),
    "content signed": lambda: TestContentOnly.around(signed(TEXT, form="signed-data")),
}


@cache
def shape_octets(shape: str) -> bytes:
    """Made once: keys and nonces are random, and an example must be the same when it is run again."""
    return SHAPES[shape]().entity


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_no_change_of_any_shape_makes_something_else_valid(shape: str, data: st.DataObject) -> None:
    """T7, T8, SEED-2, SEED-22: whichever octet is changed, removed or put in, of headers or octets, in whatever layer."""
    raw = bytearray(shape_octets(shape))
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["flip", "drop", "insert", "copy"])):
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "drop":
            del raw[at : at + data.draw(st.integers(1, 20))]
        case "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        case _:
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 60))]
    verdict = opened(bytes(raw))
    if verdict.verdict in (VerdictKind.VALID, VerdictKind.VALID_WEAK):
        assert (verdict.content, verdict.signer) == (cpim(), "im:alice@a.test")
    if verdict.verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED:
        assert verdict.content is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_octets_inside_get_a_verdict(raw: bytes, is_authenticated: bool) -> None:
    octets = cms_seal.seal(raw, [bob().certificate], cipher="aes-128-gcm" if is_authenticated else "aes-128-cbc")
    verdict = opened(MimeObject.of("application/pkcs7-mime", octets))
    assert not verdict.is_valid
    assert is_authenticated or verdict.verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED
