"""Which stock clients meet, over what, and which texts they exchange.

The texts are the issue's: emoji and markup, several lines, 5,000 characters. A client that cannot do one of them
itself gets the longest it can, or that case is not made; ``Limits`` in its driver and the table in
docs/howto/connect-your-client.md say why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.interop.baresip import Baresip
from tests.interop.clients import StockClient, Transport
from tests.interop.linphone import Linphone, LinphoneConsole
from tests.interop.mcabber import Mcabber
from tests.interop.pjsua import Pjsua
from tests.interop.profanity import Profanity
from tests.interop.purple import PurpleXmpp
from tests.interop.slixmpp_client import SlixmppClient
from tests.interop.twinkle import Twinkle

CLIENTS: dict[str, type[StockClient]] = {
    kind.name: kind for kind in (Baresip, Linphone, Pjsua, Twinkle, Mcabber, Profanity, PurpleXmpp, SlixmppClient)
}

WATCHING: dict[str, type[StockClient]] = {
    kind.name: kind for kind in (Baresip, LinphoneConsole, Pjsua, Mcabber, Profanity, PurpleXmpp, SlixmppClient)
}
"""Those that know presence. Twinkle's console has no word for it, and Linphone's daemon none either."""

UDP_OCTETS = 700
"""RFC 3428 section 8: a MESSAGE of more than 1,300 octets must not go over UDP; the rest is for its headers."""

Seat = tuple[str, Transport]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people, each with a client and the way it signs in."""

    alice: Seat
    bob: Seat

    def __str__(self) -> str:
        return "-with-".join("/".join(seat) for seat in (self.alice, self.bob))


PAIRS = [
    Pair(("baresip", "tcp"), ("mcabber", "starttls")),
    Pair(("linphone", "tcp"), ("profanity", "starttls")),
    Pair(("baresip", "tls"), ("slixmpp", "starttls")),
    Pair(("linphone", "tls"), ("mcabber", "tls")),
    Pair(("baresip", "udp"), ("profanity", "tls")),
    Pair(("linphone", "udp"), ("slixmpp", "tls")),
    Pair(("baresip", "tcp"), ("linphone", "tls")),
    Pair(("mcabber", "tls"), ("profanity", "starttls")),
    Pair(("pjsua", "tcp"), ("libpurple", "starttls")),
    Pair(("twinkle", "tcp"), ("libpurple", "tls")),
    Pair(("pjsua", "udp"), ("twinkle", "udp")),
    Pair(("pjsua", "tls"), ("slixmpp", "starttls")),
]

_NUMBERED = "".join(f"{count:05d}" for count in range(998))
WATCHES: list[tuple[Seat, Seat]] = [
    # the watcher, and whom it watches
    (("pjsua", "tls"), ("profanity", "starttls")),
    (("baresip", "tcp"), ("slixmpp", "tls")),
    (("linphonec", "tls"), ("mcabber", "starttls")),
    (("pjsua", "udp"), ("libpurple", "tls")),
    (("profanity", "tls"), ("pjsua", "tls")),
    (("slixmpp", "tls"), ("baresip", "tls")),
    (("mcabber", "tls"), ("linphonec", "tcp")),
    (("libpurple", "starttls"), ("pjsua", "tcp")),
    (("linphonec", "udp"), ("pjsua", "tls")),
    (("pjsua", "tcp"), ("baresip", "udp")),
    (("profanity", "starttls"), ("libpurple", "tls")),
    (("mcabber", "tls"), ("slixmpp", "starttls")),
]

TEXTS = {
    "emoji and markup": "Grüße 👋🏽 <&>\" ' ]]> &amp; 你好 👩‍👩‍👧",
    "several lines": 'first\n<second> & "third"\n\n    fourth, after an empty line 🙂',
    "5,000 characters": _NUMBERED + "👋" * 10,
}
"""The long one is numbered, so that a part that is lost, doubled or moved shows."""


@dataclass(frozen=True, slots=True)
class Case:
    """One text in one direction of one pair."""

    pair: Pair
    sender: int
    """0: alice to bob, 1: bob to alice."""
    kind: str
    text: str

    @property
    def is_whole(self) -> bool:
        return self.text == TEXTS[self.kind]

    def __str__(self) -> str:
        seats = (self.pair.alice, self.pair.bob)
        name = f"{seats[self.sender][0]} to {seats[1 - self.sender][0]}"
        return f"{self.pair}: {name}: {self.kind}" + ("" if self.is_whole else f", cut to {len(self.text)}")


def fitted(text: str, sender: Seat, receiver: Seat) -> str | None:
    """The longest beginning of ``text`` both clients and their transports can take; None if its lines cannot be sent."""
    sends, shows = CLIENTS[sender[0]].limits, CLIENTS[receiver[0]].limits
    if "\n" in text and not sends.sends_lines:
        return None
    most = min(sends.send_octets, shows.show_octets)
    if "udp" in (sender[1], receiver[1]):
        most = min(most, UDP_OCTETS)
    return text.encode()[:most].decode(errors="ignore")


def cases() -> Iterator[Case]:
    for pair in PAIRS:
        seats = (pair.alice, pair.bob)
        for kind, text in TEXTS.items():
            for sender in (0, 1):
                fit = fitted(text, seats[sender], seats[1 - sender])
                if fit is not None:
                    yield Case(pair, sender, kind, fit)
