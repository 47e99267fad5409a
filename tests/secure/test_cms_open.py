"""Encrypted CMS both ways, below the MIME layer (RFC 5652 section 6, RFC 5083, RFC 8418); SEC-9, SEC-10, M-27 to M-33."""

from __future__ import annotations

import contextlib
import random
import time
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import Identity, ber, chain, cms_enveloped, cms_keys, cms_open, cms_seal, new_identity
from comity.secure.evidence import DecryptionFailed, NoKey, TooLarge, UnknownAlgorithm
from comity.secure.identity import KeyKind
from tests.secure import kit
from tests.secure.costs import times_dearer
from tests.secure.damage import extent, flipped, inner, secret_places, wrapped_anew
from tests.secure.kit import NOW

ENTITY = b"Content-Type: text/plain\r\n\r\nWatson, come here - I want to see you."
KINDS: tuple[KeyKind, ...] = ("p256", "rsa", "ed25519")
READERS: dict[KeyKind, Address] = {"p256": kit.ALICE, "rsa": kit.BOB, "ed25519": kit.EVE}


def reader(kind: KeyKind) -> Identity:
    return kit.identity(READERS[kind], kind)


def certificates(*identities: Identity) -> list[x509.Certificate]:
    return [identity.decryption_keys[0].certificate for identity in identities]


def seal(
    *identities: Identity, entity: bytes = ENTITY, cipher: str = "aes-128-gcm", has_old_rsa: bool = False
) -> bytes:
    return cms_seal.seal(entity, certificates(*identities), cipher=cipher, has_old_rsa=has_old_rsa)


class TestRoundTrips:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("cipher", sorted(cms_keys.WRITTEN))
    def test_every_key_opens_every_cipher(self, kind: KeyKind, cipher: str) -> None:
        """SEC-9, SEC-10: a P-256 and an RSA key sign and read; an Ed25519 identity reads with its X25519 key."""
        raw = seal(reader(kind), cipher=cipher)
        assert ber.read(raw).der() == raw
        opened = cms_open.open_enveloped(raw, [reader(kind)])
        assert (opened.entity, opened.algorithm) == (ENTITY, cipher)
        assert opened.is_authenticated is cipher.endswith("gcm")
        assert opened.recipient == chain.fingerprint(certificates(reader(kind))[0])

    @pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
    def test_the_larger_curves_read_too(self, curve: ec.EllipticCurve) -> None:
        key = ec.generate_private_key(curve)
        identity = Identity(kit.ALICE, key, (kit.ca().issue(kit.ALICE, key.public_key(), when=NOW),))
        assert cms_open.open_enveloped(seal(identity), [identity]).entity == ENTITY

    def test_old_rsa_is_written_on_request_only(self) -> None:
        assert cms_keys.RSA_ENCRYPTION not in oids(seal(reader("rsa")))
        raw = seal(reader("rsa"), has_old_rsa=True)
        assert cms_keys.RSA_ENCRYPTION in oids(raw)
        assert cms_open.open_enveloped(raw, [reader("rsa")]).entity == ENTITY

    def test_several_recipients_of_mixed_kinds_each_open_one_object(self) -> None:
        raw = seal(*map(reader, KINDS))
        for kind in KINDS:
            assert cms_open.open_enveloped(raw, [reader(kind)]).entity == ENTITY
        assert cms_open.open_enveloped(raw, list(map(reader, KINDS))).entity == ENTITY

    def test_somebody_else_has_no_key(self) -> None:
        with pytest.raises(NoKey):
            cms_open.open_enveloped(seal(reader("p256")), [reader("rsa"), reader("ed25519")])
        with pytest.raises(NoKey):
            cms_open.open_enveloped(seal(reader("p256")), [])

    def test_two_objects_of_one_entity_share_nothing(self) -> None:
        first, second = seal(reader("p256")), seal(reader("p256"))
        assert first[-60:] != second[-60:]

    @settings(max_examples=40)
    @given(st.binary(max_size=200), st.sampled_from(sorted(cms_keys.WRITTEN)), st.sampled_from(KINDS[::2]))
    def test_any_octets_come_back(self, entity: bytes, cipher: str, kind: KeyKind) -> None:
        raw = seal(reader(kind), entity=entity, cipher=cipher)
        assert cms_open.open_enveloped(raw, [reader(kind)]).entity == entity

    @pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65535, 65536, 65537])
    @pytest.mark.parametrize("cipher", ["aes-128-gcm", "aes-128-cbc"])
    def test_sizes_around_blocks_and_chunks(self, cipher: str, size: int) -> None:
        entity = bytes(size)
        raw = seal(reader("p256"), entity=entity, cipher=cipher)
        assert cms_open.open_enveloped(raw, [reader("p256")]).entity == entity

    def test_a_certificate_that_only_signs_or_is_small_is_refused(self) -> None:
        """SEC-11: a small RSA key is never encrypted to."""
        with pytest.raises(SecurityError, match="can only sign"):
            cms_seal.seal(ENTITY, [kit.identity(kit.EVE, "ed25519").certificate])
        with pytest.raises(SecurityError, match="1024 bits"):
            cms_seal.seal(ENTITY, [kit.rsa_identity(1024).certificate])
        with pytest.raises(SecurityError, match="key usage"):
            cms_seal.seal(ENTITY, [kit.ca().certificate])
        with pytest.raises(SecurityError, match="1 to 1000 recipients"):
            cms_seal.seal(ENTITY, [])

    @pytest.mark.parametrize("cipher", ["des-ede3-cbc", "rc2", "aes-192-gcm"])
    def test_weak_ciphers_are_never_written(self, cipher: str) -> None:
        """SEC-11."""
        with pytest.raises(SecurityError, match="not used for encryption"):
            seal(reader("p256"), cipher=cipher)


def oids(raw: bytes) -> set[str]:
    """Every object identifier in ``raw``."""

    def walk(element: ber.Element) -> set[str]:
        if element.tag == ber.OID:
            return {element.oid()}
        return set().union(*(walk(child) for child in element.children))

    return walk(ber.read(raw))


SEALED: list[tuple[KeyKind, dict[str, object]]] = [
    ("p256", {}),
    ("ed25519", {}),
    ("rsa", {}),
    ("rsa", {"has_old_rsa": True}),
    ("p256", {"cipher": "aes-128-cbc"}),
]


class TestFailures:
    def test_a_thousand_failures_say_one_thing(self) -> None:
        """M-33, M-30, M-27: wherever the secret part is changed, one exception with one text and no cause inside."""
        dice = random.Random(5083)
        said: set[tuple[type, str, object, object]] = set()
        for kind, how in SEALED:
            raw = seal(reader(kind), entity=ENTITY * 20, **how)  # type: ignore[arg-type]  # keyword table
            places = secret_places(raw)
            for _ in range(200):
                where = dice.choice(sorted(places))
                if how.get("cipher") and where == "content":
                    # CBC protects nothing: only the padding can be wrong, in the last block but one.
                    damaged = flipped(raw, places["content"][-17], 1 << dice.randrange(8))
                else:
                    damaged = flipped(raw, dice.choice(places[where]), 1 << dice.randrange(8))
                try:
                    assert cms_open.open_enveloped(damaged, [reader(kind)]).entity != ENTITY * 20
                except DecryptionFailed as error:
                    said.add((type(error), str(error), error.__cause__, error.__context__))
        assert said == {(DecryptionFailed, "The object cannot be decrypted.", None, None)}

    @pytest.mark.parametrize(("kind", "how"), SEALED, ids=str)
    def test_no_failure_is_quicker_than_another(self, kind: KeyKind, how: dict[str, object]) -> None:
        """M-33: the same work is done whatever is wrong."""
        raw = seal(reader(kind), entity=bytes(200_000), **how)  # type: ignore[arg-type]  # keyword table
        places = secret_places(raw)
        damaged = {
            where: flipped(raw, place[-17 if where == "content" else len(place) // 2])
            for where, place in places.items()
        }

        def attempt(octets: bytes) -> None:
            # Under a key made up in place of a wrong one, CBC's padding is right by chance, one time in 256.
            with contextlib.suppress(DecryptionFailed):
                assert cms_open.open_enveloped(octets, [reader(kind)]).entity != bytes(200_000)

        ratio, costs = times_dearer({where: partial(attempt, octets) for where, octets in damaged.items()}, limit=1.5)
        assert ratio < 1.5, costs

    def test_a_key_of_another_size_is_a_failure_like_any(self) -> None:
        """Bleichenbacher's oracle is also the length: the key that RSA gives back is not one for this cipher."""
        key = reader("rsa").key
        assert isinstance(key, rsa.RSAPrivateKey)
        raw = seal(reader("rsa"), has_old_rsa=True)
        place = secret_places(raw)["key"]
        for size in (0, 15, 17, 32):
            other = key.public_key().encrypt(bytes(size), padding.PKCS1v15())
            with pytest.raises(DecryptionFailed):
                cms_open.open_enveloped(raw[: place.start] + other + raw[place.stop :], [reader("rsa")])

    def test_a_point_of_another_curve_is_a_failure_like_any(self) -> None:
        """An invalid-curve attack gets nothing but the one answer."""
        raw = seal(reader("p256"))
        originator = inner(raw).children[1].children[0].children[1].children[0].children[1]
        place = extent(originator)
        with pytest.raises(DecryptionFailed):
            cms_open.open_enveloped(flipped(raw, place[-1]), [reader("p256")])
        raw = seal(reader("ed25519"))
        originator = inner(raw).children[1].children[0].children[1].children[0].children[1]
        place = extent(originator)
        zero = raw[: place.start + 1] + bytes(32) + raw[place.stop :]  # a point of small order
        with pytest.raises(DecryptionFailed):
            cms_open.open_enveloped(zero, [reader("ed25519")])

    def test_a_changed_tag_releases_nothing_of_a_long_object(self) -> None:
        """M-30: the tag stands behind the last chunk."""
        raw = seal(reader("p256"), entity=bytes(1_000_000))
        with pytest.raises(DecryptionFailed):
            cms_open.open_enveloped(flipped(raw, len(raw) - 1), [reader("p256")])

    def test_an_authenticated_object_cannot_be_passed_off_as_an_unauthenticated_one(self) -> None:
        """M-27: the AEAD cipher inside EnvelopedData, where no tag would be checked, and the reverse."""
        gcm = inner(seal(reader("p256"))).children
        fields = [bytes(f.raw) for f in gcm[:3]]
        as_enveloped = ber.sequence(ber.oid(cms_keys.ID_ENVELOPED_DATA), ber.tlv(0xA0, ber.sequence(*fields)))
        cbc = [bytes(f.raw) for f in inner(seal(reader("p256"), cipher="aes-128-cbc")).children]
        as_authenticated = ber.sequence(
            ber.oid(cms_keys.ID_AUTH_ENVELOPED_DATA), ber.tlv(0xA0, ber.sequence(*cbc, ber.octet_string(bytes(16))))
        )
        for raw in (as_enveloped, as_authenticated):
            with pytest.raises(ber.BerError, match="does not go with"):
                cms_open.open_enveloped(raw, [reader("p256")])

    @pytest.mark.parametrize("size", [0, 4, 8, 11])
    def test_a_short_tag_is_not_taken(self, size: int) -> None:
        """A tag of 32 bits would be guessed; RFC 5084 section 3.2 has 12 to 16 octets."""
        fields = list(inner(seal(reader("p256"))).children)
        info = fields[2].children
        nonce = info[1].children[1].children[0]
        parameters = ber.sequence(bytes(nonce.raw), ber.integer(size))
        algorithm = ber.sequence(bytes(info[1].children[0].raw), parameters)
        changed = ber.sequence(bytes(info[0].raw), algorithm, bytes(info[2].raw))
        tag = ber.octet_string(bytes(fields[3].body[:size]))
        body = ber.sequence(bytes(fields[0].raw), bytes(fields[1].raw), changed, tag)
        raw = ber.sequence(ber.oid(cms_keys.ID_AUTH_ENVELOPED_DATA), ber.tlv(0xA0, body))
        with pytest.raises(ber.BerError, match="tag"):
            cms_open.open_enveloped(raw, [reader("p256")])

    @settings(max_examples=150)
    @given(st.sampled_from(SEALED), st.integers(0, 4095), st.integers(1, 255))
    def test_one_changed_octet_never_surprises(
        self, sealed: tuple[KeyKind, dict[str, object]], place: int, mask: int
    ) -> None:
        kind, how = sealed
        raw = seal(reader(kind), **how)  # type: ignore[arg-type]  # keyword table
        try:
            opened = cms_open.open_enveloped(flipped(raw, place % len(raw), mask), [reader(kind)])
        except (DecryptionFailed, ber.BerError, NoKey, UnknownAlgorithm):
            return
        # Fields that nothing depends on may change (a version, the NULL of an algorithm); the content may not.
        assert opened.entity == ENTITY or not opened.is_authenticated


class TestLimits:
    def test_a_thousand_recipients_are_looked_over_and_more_are_not(self) -> None:
        """M-31: ours is the last; in bounded time."""
        ours = reader("p256")
        others = [new_identity(kit.BOB, when=NOW) for _ in range(4)]
        base = seal(ours)
        strangers = [info for other in others for info in infos_of(seal(other))]
        started = time.process_time()
        raw = wrapped_anew(base, lambda own: strangers * 249 + strangers[:3] + own)
        assert len(inner(raw).children[1].children) == 1000
        assert cms_open.open_enveloped(raw, [ours]).entity == ENTITY
        with pytest.raises(TooLarge):
            cms_open.open_enveloped(wrapped_anew(base, lambda own: strangers * 250 + own), [ours])
        assert time.process_time() - started < 1

    def test_a_key_is_tried_once(self) -> None:
        """M-31: ten thousand entries for us cost one operation with our key."""
        raw, other = seal(reader("rsa"), entity=ENTITY * 2), seal(reader("rsa"))
        wrong_first = wrapped_anew(raw, lambda own: infos_of(other) * 900 + own)
        started = time.process_time()
        with pytest.raises(DecryptionFailed):
            cms_open.open_enveloped(wrong_first, [reader("rsa")])
        assert time.process_time() - started < 0.2

    def test_ten_keys_are_tried_at_most(self) -> None:
        """M-31: twelve of our keys are named, the eleventh would open it."""
        keys = [new_identity(kit.BOB, when=NOW) for _ in range(12)]
        good = seal(*keys)
        bad = [info for key in keys[:10] for info in infos_of(seal(key))]
        mine = {chain.fingerprint(key.certificate): key for key in keys}
        order = [info for info in infos_of(good) if opener(good, info, mine) in keys[10:]]
        raw = wrapped_anew(good, lambda _: bad + order)
        with pytest.raises(DecryptionFailed):
            cms_open.open_enveloped(raw, keys)
        assert cms_open.open_enveloped(raw, keys[10:]).entity == ENTITY

    def test_an_object_beyond_the_limit_is_not_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cms_enveloped, "MAX_OCTETS", 100)
        with pytest.raises(TooLarge):
            cms_open.open_enveloped(seal(reader("p256")), [reader("p256")])


def infos_of(raw: bytes) -> list[bytes]:
    return [bytes(info.raw) for info in inner(raw).children[1].children]


def opener(raw: bytes, info: bytes, keys: dict[str, Identity]) -> Identity:
    only = wrapped_anew(raw, lambda _: [info])
    return keys[cms_open.open_enveloped(only, list(keys.values())).recipient]


class TestNames:
    def test_a_recipient_may_be_named_by_key_identifier(self) -> None:
        """RFC 5652 section 6.2.1 and 6.2.2; also where the certificate has no such extension."""
        for kind in KINDS:
            certificate = certificates(reader(kind))[0]
            key_id = cms_open._key_ids(certificate)[0]

            def by_key_id(infos: list[bytes], key_id: bytes = key_id) -> list[bytes]:
                info = ber.read(infos[0])
                fields = [bytes(field.raw) for field in info.children]
                if info.tag == ber.SEQUENCE:
                    return [ber.sequence(ber.integer(2), ber.tlv(0x80, key_id), *fields[2:])]
                wrapped = bytes(info.children[3].children[0].children[1].raw)
                pair = ber.sequence(ber.tlv(0xA0, ber.octet_string(key_id)), wrapped)
                return [ber.tlv(0xA1, *fields[:3], ber.sequence(pair))]

            raw = wrapped_anew(seal(reader(kind)), by_key_id)
            assert cms_open.open_enveloped(raw, [reader(kind)]).entity == ENTITY
