"""No decryption oracle in ``verify``: whatever is wrong inside, one answer, and no step that only one failure takes (M-33).

The attackers meant are those who send changed copies of a ciphertext and watch what comes back: Bleichenbacher (RSA
PKCS #1 v1.5), Vaudenay (padding of CBC), Manger (OAEP). What *can* be told apart is where a structure is broken that lies
open anyway, and whether a signature inside holds; the latter is the same bit that the sender of a good copy knows.
"""

from __future__ import annotations

import random
from functools import partial

import pytest

from comity.cpim.operations import MimeObject
from comity.secure import Identity, Verdict, VerdictKind, cms_seal, sign
from comity.secure.identity import KeyKind
from tests.secure.costs import times_dearer
from tests.secure.damage import extent, flipped, inner, secret_places
from tests.secure.kit import BOB, NOW, cpim, identity, judged

#: Key, further arguments of ``seal``, and the one verdict for all that is wrong.
CASES: list[tuple[KeyKind, dict[str, object], VerdictKind]] = [
    ("p256", {}, VerdictKind.CANNOT_DECRYPT),
    ("ed25519", {}, VerdictKind.CANNOT_DECRYPT),
    ("rsa", {}, VerdictKind.CANNOT_DECRYPT),
    ("rsa", {"has_old_rsa": True}, VerdictKind.CANNOT_DECRYPT),
    ("p256", {"cipher": "aes-128-cbc"}, VerdictKind.DECRYPTED_UNAUTHENTICATED),
    ("rsa", {"cipher": "aes-128-cbc", "has_old_rsa": True}, VerdictKind.DECRYPTED_UNAUTHENTICATED),
]


def reader(kind: KeyKind) -> Identity:
    return identity(BOB, kind)


def seal(entity: bytes, kind: KeyKind, how: dict[str, object]) -> bytes:
    certificate = reader(kind).decryption_keys[0].certificate
    return cms_seal.seal(entity, [certificate], **{"cipher": "aes-128-gcm", **how})  # type: ignore[arg-type]  # a table


def ask(raw: bytes, kind: KeyKind) -> Verdict:
    return judged(MimeObject.of("application/pkcs7-mime", raw), keys=(reader(kind),))


def message(is_signed: bool, size: int = 400) -> bytes:
    plain = cpim(content=b"x" * size)
    return (sign(plain, identity(), when=NOW) if is_signed else plain).entity


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed inside", "unsigned"])
@pytest.mark.parametrize(("kind", "how", "expected"), CASES, ids=str)
def test_a_thousand_failures_say_one_thing(
    kind: KeyKind, how: dict[str, object], expected: VerdictKind, is_signed: bool
) -> None:
    """M-33: verdict, sentence, layers, refusal and everything that JSON shows, but for the hash of what came."""
    raw, dice = seal(message(is_signed), kind, how), random.Random(20260301)
    places, said = secret_places(raw), set()
    for _ in range(1000 // len(CASES) + 1):
        place = places[dice.choice(sorted(places))]
        octets = raw
        for _ in range(dice.choice((1, 1, 1, 16))):
            octets = flipped(octets, dice.choice(place), 1 << dice.randrange(8))
        verdict = ask(octets, kind)
        if verdict.is_valid:  # CBC around what the signature does not cover, its own MIME headers say
            assert is_signed
            assert verdict.content is not None
            assert verdict.content.entity == cpim(content=b"x" * 400).entity
            continue
        assert verdict.verdict is expected
        assert verdict.content is None
        said.add((str(sorted((verdict.to_json() | {"sha256": ""}).items())), verdict.refusal))
    assert len(said) == 1


def dearer(octets: dict[str, bytes], kind: KeyKind) -> tuple[float, str]:
    return times_dearer({name: partial(ask, raw, kind) for name, raw in octets.items()}, limit=LIMIT)


LIMIT = 1.06
"""Times the cheapest that the dearest may cost; see ``test_bad_padding_takes_the_steps_of_good_padding``."""


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_bad_padding_takes_the_steps_of_good_padding(kind: KeyKind) -> None:
    """M-33: the two objects differ from a good one in the last block but one, only one of them in its padding.

    Left to the padding check, the one with bad padding would end 60 to 170 of some 800 microseconds sooner, before its inside is read."""
    raw = seal(message(is_signed=True, size=20_000), kind, {"cipher": "aes-128-cbc"})
    content = secret_places(raw)["content"]
    same = {"good": flipped(raw, content[-32]), "bad": flipped(raw, content[-17], 0x80)}
    ratio, costs = dearer(same, kind)
    assert ratio < LIMIT, costs


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_a_wrong_key_takes_the_steps_of_a_broken_beginning(kind: KeyKind) -> None:
    """M-33: a content key that cannot be had is made up and used all the same."""
    how = {"cipher": "aes-128-cbc", "has_old_rsa": kind == "rsa"}
    raw = seal(message(is_signed=True, size=20_000), kind, how)
    places = secret_places(raw)
    key = flipped(raw, places["key"][len(places["key"]) // 2])
    ratio, costs = dearer({"key": key, "content": flipped(raw, places["content"][3])}, kind)
    assert ratio < LIMIT, costs


@pytest.mark.parametrize(("kind", "how", "expected"), CASES[:4], ids=str)
def test_no_authenticated_failure_is_quicker_than_another(
    kind: KeyKind, how: dict[str, object], expected: VerdictKind
) -> None:
    """M-33: a wrong key, content and tag cost the same."""
    raw = seal(message(is_signed=True, size=20_000), kind, how)
    octets = {name: flipped(raw, place[len(place) // 2]) for name, place in secret_places(raw).items()}
    assert {ask(one, kind).verdict for one in octets.values()} == {expected}
    ratio, costs = dearer(octets, kind)
    assert ratio < LIMIT, costs


def test_the_vector_counts_as_content() -> None:
    """The beginning of CBC is changed by its vector, which lies open."""
    raw = seal(message(is_signed=False), "p256", {"cipher": "aes-128-cbc"})
    vector = extent(inner(raw).children[2].children[1].children[1])
    for at in vector:
        assert ask(flipped(raw, at), "p256").verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED
