"""N-01 … N-17 (reliability.md section 2.9) as far as they are XMPP's: strangers, forged words, timing, a crash."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.catalogue.harness import Target
from tests.catalogue.raw import RawXmpp
from tests.catalogue.test_xmpp import PING, Device, ask, condition
from tests.evenness import assert_same_time

PROBES = int(os.environ.get("COMITY_CATALOGUE_REPEATS", "40")) * 5
"""Probes of each kind (N-12; the text asks for 1,000)."""
GET = b"<iq type='get' id='list'><query xmlns='jabber:iq:roster'/></iq><presence/>"


def told(peer: RawXmpp) -> list[bytes]:
    """All stanzas that came before the answer to a question asked now, but for what belongs to that question."""
    peer.send(PING)
    octets = peer.until(rb"<iq[^>]* id='alive'[^>]*/>")
    found = [m[0] for m in re.finditer(rb"<(presence|message|iq)\b(?:[^>]*/>|.*?</\1>)", octets, re.DOTALL)]
    return [one for one in found if b" id='alive'" not in one and b"urn:xmpp:ping" not in one]


@contextmanager
def available(target: Target, user: str) -> Iterator[RawXmpp]:
    """An available and interested device."""
    with Device(target, "bound", user) as peer:
        peer.send(GET)
        peer.until(rb"<presence from='[^']*' to='[^']*'/>")
        told(peer)
        yield peer


def types(stanzas: list[bytes]) -> list[str]:
    """What kinds of presence came."""
    return [m[1].decode() if (m := re.search(rb" type='(\w+)'", one)) else "available" for one in stanzas]


class TestStrangers:
    def test_a_probe_learns_nothing(self, target: Target) -> None:
        """N-01: a stranger's probe of a person who is there is answered as one of nobody."""
        with target.row("N-01"), available(target, "bob") as bob, available(target, "alice") as alice:
            answers = []
            for name in ("bob", "nobody-at-all"):
                alice.send(f"<presence type='probe' id='p' to='{name}@a.test'/>".encode())
                answers.append(
                    alice.until(rb"<presence[^>]*type='unsubscribed'[^>]*/>").replace(name.encode(), b"NAME")
                )
            assert len(answers) == 2
            assert answers[0] == answers[1]
            assert told(alice) == []
            assert told(bob) == []

    def test_a_probe_takes_as_long_for_nobody(self, target: Target) -> None:
        """N-12: the medians differ by less than 5 % and a millisecond."""
        with target.row("N-12"), available(target, "bob"), available(target, "alice") as alice:

            def probe(is_there: bool) -> None:
                local = "bob" if is_there else f"missing{secrets.token_hex(4)}"
                alice.send(f"<presence type='probe' id='p' to='{local}@a.test'/>".encode())
                alice.until(rb"<presence[^>]*type='unsubscribed'[^>]*/>")

            assert_same_time(probe, lambda: None, PROBES, ratio=0.05, seconds=0.001)

    def test_an_approval_nobody_asked_for_is_ignored(self, target: Target) -> None:
        """N-07: by no state and no word of it does the other change."""
        with target.row("N-07", stores=True), available(target, "bob") as bob, available(target, "alice") as alice:
            for kind in ("subscribed", "unsubscribed", "unsubscribe"):
                alice.send(f"<presence type='{kind}' to='bob@a.test'/>".encode())
            told(alice)
            assert told(bob) == []
            alice.send(b"<iq type='set' id='x'><query xmlns='jabber:iq:roster'><item jid='bob@a.test' "
                       b"subscription='remove'/></query></iq>")  # fmt: skip  # what was said is taken back
            told(alice)

    def test_presence_to_a_bare_domain_is_dropped(self, target: Target) -> None:
        """N-14."""
        with target.row("N-14"), available(target, "alice") as alice:
            for kind in ("", " type='unavailable'", " type='probe'", " type='subscribe'", " type='subscribed'"):
                alice.send(f"<presence to='a.test'{kind}/>".encode())
            assert told(alice) == []


@pytest.mark.parametrize("kind", ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "unavailable", "probe"])
def test_a_word_in_somebody_elses_name_ends_the_stream(target: Target, kind: str) -> None:
    """X-46, SEC-31 to SEC-33, T19: and nobody hears of it."""
    with target.row(f"X-46 {kind}"), available(target, "bob") as bob, available(target, "alice") as alice:
        alice.send(f"<presence from='canary-x@a.test' to='bob@a.test' type='{kind}'/>".encode())
        assert b"<invalid-from" in alice.until_closed()
        assert told(bob) == []


def test_a_contact_list_is_changed_by_nobody_else(target: Target) -> None:
    """X-62, CVE-2015-8688: neither by the account's server's words nor by asking it."""
    push = "<query xmlns='jabber:iq:roster'><item jid='mallory@a.test' subscription='both'/></query>"
    with target.row("X-62"), available(target, "bob") as bob, available(target, "alice") as alice:
        (resource,) = re.findall(rb"<jid>bob@a\.test/([^<]*)</jid>", bob.heard) or [b"x"]
        for to, expected in [
            (f"bob@a.test/{resource.decode()}", "service-unavailable"),
            ("bob@a.test", "forbidden"),
            ("nobody@a.test", "forbidden"),
        ]:
            answer = ask(alice, f"<iq type='set' id='x' to='{to}'>{push}</iq>".encode())
            assert condition(answer) == expected
        assert told(bob) == []


def test_a_roster_of_bad_items_changes_nothing(target: Target) -> None:
    """RFC 6121 section 2.3.3 on the wire: long, many, empty, twice, of nobody."""
    items = [
        ("<item/>", "bad-request"),
        ("<item jid='bob@a.test'/><item jid='carol@a.test'/>", "bad-request"),
        ("<item jid='bob@a.test'><group/></item>", "not-acceptable"),
        ("<item jid='bob@a.test'><group>a</group><group>a</group></item>", "bad-request"),
        (f"<item jid='bob@a.test' name='{'n' * 200_000}'/>", "not-acceptable"),
        ("<item jid='@@@///'/>", "jid-malformed"),
        (f"<item jid='{'b' * 1024}@a.test'/>", "jid-malformed"),
        ("<item jid='alice@a.test'/>", "not-allowed"),
    ]
    with target.row("roster set"), available(target, "alice") as alice:
        for item, expected in items:
            stanza = f"<iq type='set' id='x'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
            assert condition(ask(alice, stanza.encode())) == expected
        alice.send(b"<iq type='get' id='l2'><query xmlns='jabber:iq:roster'/></iq>")
        (answer,) = told(alice)
        assert b"<item" not in answer


def test_a_crash_closes_everybody_until_they_speak_again(tmp_path: Path) -> None:
    """N-17, G9, I9: nothing of what was open is shown after a kill, to whoever comes first."""
    target = Target(tmp_path)
    try:
        with available(target, "bob") as bob, available(target, "alice") as alice:
            alice.send(b"<presence type='subscribe' to='bob@a.test'/>")
            told(alice)
            bob.send(b"<presence type='subscribed' to='alice@a.test'/><presence><show>chat</show></presence>")
            told(bob)
            assert "available" in types(told(alice))
        target.canary.stop()
        target.server.kill()
        target.server.start()
        with Device(target, "bound", "alice") as alice:
            alice.send(GET)
            shown = [one for one in told(alice) if one.startswith(b"<presence") and b"from='bob@" in one]
            assert "available" not in types(shown)
            with available(target, "bob"):
                alice.until(rb"<presence to='alice@a\.test' from='bob@a\.test/[^']*'/>")
    finally:
        target.server.kill()
