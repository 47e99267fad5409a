"""comity.testing.objects: the corpus agrees with the parser about every object (SEED-10, SEED-11)."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from comity.cpim.address import Address
from comity.cpim.imdn import is_report
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.native import plain_text, readable_part
from comity.errors import MalformedMessage
from comity.testing.objects import GeneratedObject, objects

ALICE = Address.im("Alice O'Hara", "x.example")
BOB = Address.im("bob", "bücher.example")


def corpus(seed: int, count: int) -> list[GeneratedObject]:
    return list(objects(seed, count, ALICE, BOB))


def judge(octets: bytes) -> str:
    try:
        check_profile(CpimMessage.parse(octets))
    except MalformedMessage as error:
        return error.reason
    return ""


def test_each_object_is_what_it_says() -> None:
    for obj in corpus(1, 4000):
        assert obj.media_type == "message/cpim"
        assert (judge(obj.octets) == "") is obj.is_valid, (obj.kind, judge(obj.octets), obj.octets)


def test_valid_objects_name_source_and_destination() -> None:
    for obj in islice((obj for obj in corpus(2, 500) if obj.is_valid), 300):
        message = CpimMessage.parse(obj.octets)
        assert message.from_ is not None
        assert Address.from_any(message.from_.uri) == ALICE
        assert BOB in [Address.from_any(to.uri) for to in message.to]
        for header in message.headers:
            assert obj.octets[header.offset :].startswith(header.raw + b"\r\n")
        plain_text(obj)
        readable_part(obj)
        assert not is_report(obj)


def test_corpus_depends_on_its_seed_only() -> None:
    assert [obj.octets for obj in corpus(3, 50)] == [obj.octets for obj in corpus(3, 80)][:50]
    assert [obj.octets for obj in corpus(3, 50)] != [obj.octets for obj in corpus(4, 50)]


def test_corpus_has_every_kind_and_odd_octets() -> None:
    """C-24, C-25: faults, newline forms, empty bodies, lookalikes."""
    made = corpus(5, 3000)
    kinds = Counter(obj.kind for obj in made)
    assert len(kinds) > 30
    assert 0.1 < sum(not obj.is_valid for obj in made) / len(made) < 0.25
    everything = b"".join(obj.octets for obj in made)
    for piece in (b"]]>", b"--next--", bytes(range(256)), "\u2028".encode(), b"END\r\n", b"</message>"):
        assert piece in everything
