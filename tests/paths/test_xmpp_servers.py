"""Two real servers and XMPP streams between them: both ways, whole objects, failures, outages (XMPP-3, GW-8, GW-12, T3, T8, SEC-33)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
from tests.paths.kit import Via
from tests.paths.neighbours import ALICE, BOB, Neighbours
from tests.paths.test_neighbours import VIAS, listening, run

NOBODY = Address.parse("im:nobody@b.test")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with Neighbours(tmp_path_factory.mktemp("servers"), "xmpp", "tcp") as neighbours:
        yield neighbours


@pytest.mark.parametrize(("source", "sink"), [(source, sink) for source in VIAS for sink in VIAS])
def test_a_signed_object_crosses_two_servers_untouched(both: Neighbours, source: Via, sink: Via) -> None:
    """G3, GW-2: whatever the people speak, the far end verifies what the near end signed."""

    async def story() -> None:
        authority = LocalCa.create("Test authority", when=datetime.now(UTC))
        alice = new_identity(ALICE, ca=authority, when=datetime.now(UTC))
        signed = sign(text_object(ALICE, BOB, "signed 🎉"), alice, when=datetime.now(UTC))
        async with both.a.client(source, ALICE, receive=False) as one, both.b.client(sink, BOB) as other:
            sending = asyncio.ensure_future(one.send(signed, BOB))
            [received] = await listening(other, 1)
            assert (await sending).status is Status.INDETERMINANT  # the other server reports what goes wrong later
        assert received.object.octets == signed.octets
        assert received.from_ == ALICE
        trust = TrustStore(anchors=(authority.certificate,))
        verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=ALICE, expected_to=BOB)
        assert (verdict.verdict, verdict.signer) == ("valid", ALICE.uri), verdict.reason
        assert [(hop.node, hop.in_protocol, hop.out_protocol) for hop in received.history] == [
            ("a.test", source, "xmpp"),
            ("b.test", "xmpp", sink),
        ]

    run(story())
