"""Stock clients of Debian sign in to the real server and exchange texts.

Evidence for OPS-16, SIP-1, GW-1 and GW-2 with peers nobody here wrote: what one user types is what the other reads.
"""

from __future__ import annotations

from itertools import product

import pytest

from tests.interop.catalogue import CLIENTS, PAIRS, TEXTS, Case, cases, fitted
from tests.interop.conftest import Seating

ALL_CASES = list(cases())


@pytest.mark.peer
@pytest.mark.parametrize("case", ALL_CASES, ids=str)
def test_what_one_client_sends_the_other_shows_once_and_nothing_else(seating: Seating, case: Case) -> None:
    pair = seating.seat(case.pair)
    pair.exchange(pair.clients[case.sender], pair.clients[1 - case.sender], case.text)


def test_every_text_crosses_whole_in_both_directions_somewhere() -> None:
    """The promise is about all texts between SIP over TCP and XMPP; the clients' limits must not hollow it out."""
    whole = set()
    for case in ALL_CASES:
        seats = (case.pair.alice, case.pair.bob)
        protocols = [CLIENTS[name].protocol for name, _ in (seats[case.sender], seats[1 - case.sender])]
        if case.is_whole and set(protocols) == {"sip", "xmpp"} and "tcp" in (seats[0][1], seats[1][1]):
            whole.add((protocols[0], case.kind))
    assert whole == set(product(("sip", "xmpp"), TEXTS))


def test_every_client_and_every_transport_of_it_has_a_pair() -> None:
    tried = {seat for pair in PAIRS for seat in (pair.alice, pair.bob)}
    offered = {(name, transport) for name, kind in CLIENTS.items() for transport in kind.transports}
    assert tried == offered


def test_the_long_text_has_5000_characters() -> None:
    assert len(TEXTS["5,000 characters"]) == 5000


def test_a_text_is_cut_between_characters_and_only_to_what_both_can_do() -> None:
    long = TEXTS["5,000 characters"]
    assert fitted(long, ("slixmpp", "tls"), ("linphone", "tcp")) == long
    assert fitted("é" * 5000, ("mcabber", "tls"), ("slixmpp", "tls")) == "é" * 4000
    assert fitted("👋" * 5000, ("linphone", "udp"), ("slixmpp", "tls")) == "👋" * 175
    assert fitted("a\nb", ("linphone", "tcp"), ("slixmpp", "tls")) is None
    assert fitted("a\nb", ("slixmpp", "tls"), ("linphone", "tcp")) == "a\nb"
