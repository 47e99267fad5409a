"""Section 2.9 over SIP: each row on a running server, by UDP and TCP, with nothing of ours in the phone.

Rows about documents alone are in ``test_presence_documents.py``, those of stanzas in the XMPP module.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Iterator

import pytest

from tests.catalogue.harness import Target
from tests.catalogue.raw import sip_status
from tests.catalogue.sip_agent import CRLF, WIRES, Agent, Wire, header
from tests.catalogue.test_presence_documents import HOSTILE
from tests.evenness import assert_same_time

PIDF = "application/pidf+xml"
DOCUMENT = (
    "<?xml version='1.0' encoding='UTF-8'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{who}@a.test'>"
    "<tuple id='t'><status><basic>{basic}</basic></status>{more}</tuple></presence>"
)
_serial = itertools.count(1)
MANY = tuple(f"many{number}" for number in range(8))
"""Who publish in turn, so that nobody publishes more than one may."""
_publishers = itertools.cycle(MANY)


def pidf(who: str = "bob", basic: str = "open", more: str = "") -> bytes:
    return DOCUMENT.format(who=who, basic=basic, more=more).encode()


class Watcher(Agent):
    """A phone with presence."""

    def __init__(self, target: Target, wire: Wire, user: str = "alice") -> None:
        super().__init__(target, wire, user)
        self.notified: list[bytes] = []

    def request(self, method: str, uri: str, *lines: str, body: bytes = b"", **parts: str) -> bytes:
        """Send with credentials, by a fresh challenge if the old one is stale; the answer to it. NOTIFY requests that come before
        are answered and kept."""
        answer = self._request(method, uri, *lines, body=body, **parts)
        if sip_status(answer) == 401 and b"stale=true" in answer:
            self._challenge = b""
            answer = self._request(method, uri, *lines, body=body, **parts)
        return answer

    def _request(self, method: str, uri: str, *lines: str, body: bytes, **parts: str) -> bytes:
        signed = self.sign(self.build(method, uri, *lines, body=body, **parts))
        call_id = header(signed, "Call-ID")
        answer = self.ask(signed)
        while not (answer.startswith(b"SIP/2.0") and header(answer, "Call-ID", "i") == call_id):
            self.take(answer)
            answer = self.hear()
        return answer

    def take(self, message: bytes) -> None:
        if message.startswith(b"NOTIFY "):
            self.notified.append(message)
            self.reply(message)

    def subscribe(self, uri: str, expires: int = 600, *lines: str, **parts: str) -> bytes:
        """A new subscription; the answer."""
        given = {line.partition(":")[0] for line in lines}
        own = [
            line
            for line in ("Event: presence", f"Expires: {expires}", f"Contact: {self.contact}")
            if line.partition(":")[0] not in given
        ]
        return self.request("SUBSCRIBE", uri, *own, *lines, body=b"", **parts)

    def again(self, first: bytes, expires: int, **parts: str) -> bytes:
        """A SUBSCRIBE in the dialog of ``first``, the answer to its SUBSCRIBE."""
        found = re.search(r"<([^>]*)>", header(first, "Contact", "m"))
        assert found is not None
        named = {
            "from_": "From: " + header(first, "From", "f"),
            "to": "To: " + header(first, "To", "t"),
            "call_id": "Call-ID: " + header(first, "Call-ID", "i"),
            "cseq": f"CSeq: {next(_serial) + 1} SUBSCRIBE",
            **parts,
        }
        return self.subscribe(found[1], expires, **named)

    def publish(self, body: bytes = b"", etag: str = "", expires: int = 600, kind: str = PIDF, uri: str = "") -> bytes:
        """A PUBLISH; the answer."""
        lines = ["Event: presence", f"Expires: {expires}"]
        lines += [f"SIP-If-Match: {etag}"] if etag else []
        lines += [f"Content-Type: {kind}"] if body else []
        return self.request("PUBLISH", uri or self.aor, *lines, body=body)

    def next_notify(self) -> bytes:
        """Wait for the next NOTIFY."""
        while not self.notified:
            self.take(self.hear())
        return self.notified.pop(0)

    def until_now(self) -> list[bytes]:
        """NOTIFY requests that came before the answer to a question asked now."""
        for message in self.rest():
            self.take(message)
        taken, self.notified = self.notified, []
        return taken


def state(notify: bytes) -> str:
    return header(notify, "Subscription-State").partition(";expires")[0]


def body(message: bytes) -> bytes:
    return message.partition(CRLF * 2)[2]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Everybody is asked, and nobody answers."""
    target = Target(tmp_path_factory.mktemp("asking"), people=("carol",))
    yield target
    target.check_canary()
    target.close()


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Everybody may see everybody."""
    limits = "presence_interval = 1\n[policy]\npresence_default = 'everyone'"
    target = Target(tmp_path_factory.mktemp("free"), limits, people=("carol", "dave", "flood-udp", "flood-tcp", *MANY))
    yield target
    target.check_canary()
    target.close()


@pytest.mark.parametrize("wire", WIRES)
class TestStrangers:
    def test_unapproved_and_unknown_look_alike(self, target: Target, wire: Wire) -> None:
        """N-02: 200 (never 202), a NOTIFY that says pending and nothing else, the same for a user there is not."""
        with target.row("N-02"), Watcher(target, wire) as alice:
            seen = []
            for uri in ("sip:bob@a.test", "sip:nosuch@a.test"):
                answer = alice.subscribe(uri, 60)
                notify = alice.next_notify()
                assert sip_status(answer) == 200
                assert (state(notify), body(notify)) == ("pending", b"")
                seen.append(
                    [[re.split(rb"[:;]", line)[0] for line in message.split(CRLF)[1:]] for message in (answer, notify)]
                )
            assert seen[0] == seen[1]

    def test_a_forged_address_hears_nothing(self, target: Target, wire: Wire) -> None:
        """N-10: challenged where it came from, no state; the one named in Contact, From and Via hears nothing."""
        with target.row("N-10"), Watcher(target, wire) as victim, Watcher(target, wire) as attacker:
            forged = attacker.build(
                "SUBSCRIBE",
                "sip:bob@a.test",
                "Event: presence",
                f"Contact: {victim.contact}",
                "Expires: 600",
            )
            assert sip_status(attacker.ask(forged)) == 401
            assert victim.until_now() == []
            assert attacker.until_now() == []

    def test_the_dialog_of_another_user(self, target: Target, wire: Wire) -> None:
        """N-08: 481 to the thief, and what was there stays."""
        with target.row("N-08"), Watcher(target, wire) as alice, Watcher(target, wire, "carol") as carol:
            first = alice.subscribe("sip:bob@a.test", 60)
            alice.next_notify()
            tag = re.search(r";tag=([^;]*)", header(first, "From", "f"))
            assert tag is not None
            stolen = carol.again(first, 0, from_=f"From: <sip:carol@a.test>;tag={tag[1]}")
            assert sip_status(stolen) == 481
            assert sip_status(carol.again(first, 0)) == 403
            assert sip_status(alice.again(first, 60)) == 200
            assert state(alice.next_notify()) == "pending"

    def test_watcher_information_is_the_presentitys(self, target: Target, wire: Wire) -> None:
        """N-11: 403 for others; a second level is no package."""
        with target.row("N-11"), Watcher(target, wire) as alice:
            own = "Event: presence.winfo"
            assert sip_status(alice.subscribe("sip:bob@a.test", 60, own)) == 403
            nested = alice.subscribe("sip:alice@a.test", 60, "Event: presence.winfo.winfo")
            assert (sip_status(nested), header(nested, "Allow-Events", "u")) == (489, "presence, presence.winfo")
            assert alice.until_now() == []

    def test_a_notify_for_a_dialog_nobody_has(self, target: Target, wire: Wire) -> None:
        """N-13."""
        with target.row("N-13"), Watcher(target, wire) as alice:
            lines = ("Event: presence", "Subscription-State: active;expires=60", f"Contact: {alice.contact}")
            notify = alice.build("NOTIFY", "sip:bob@a.test", *lines, to="To: <sip:bob@a.test>;tag=gone")
            assert sip_status(alice.ask(notify)) == 481


@pytest.mark.parametrize("wire", WIRES)
class TestWatching:
    def test_a_life(self, free: Target, wire: Wire) -> None:
        """SIP-16, SIP-17, SIP-30, N-09: subscribed, notified, refreshed, ended; nothing comes after the end."""
        with free.row("N-09"), Watcher(free, wire) as alice, Watcher(free, wire, "bob") as bob:
            first = alice.subscribe("sip:bob@a.test")
            assert (sip_status(first), header(first, "Expires")) == (200, "600")
            assert b"closed" in body(alice.next_notify())
            told = bob.publish(pidf())
            assert sip_status(told) == 200
            notify = alice.next_notify()
            assert state(notify) == "active"
            assert b"open" in body(notify)
            assert sip_status(alice.again(first, 300)) == 200
            assert header(alice.next_notify(), "Subscription-State") == "active;expires=300"
            assert sip_status(alice.again(first, 0)) == 200
            assert state(alice.next_notify()) == "terminated;reason=timeout"
            etag = header(told, "SIP-ETag")
            assert sip_status(bob.publish(etag=etag, expires=0)) == 200
            assert alice.until_now() == []
            assert sip_status(alice.again(first, 60)) == 481

    def test_a_fetch(self, free: Target, wire: Wire) -> None:
        """OPS-28, RFC 6665 section 4.4.3."""
        with free.row("fetch"), Watcher(free, wire) as alice:
            assert sip_status(alice.subscribe("sip:carol@a.test", 0)) == 200
            notify = alice.next_notify()
            assert state(notify) == "terminated;reason=timeout"
            assert b"<basic>closed</basic>" in body(notify)

    @pytest.mark.parametrize(
        ("line", "code"),
        [("Expires: 30", 423), ("Accept: x/y", 406), ("Event: Presence", 489), ("Event: presence;id=", 400)],
    )
    def test_refusals(self, free: Target, wire: Wire, line: str, code: int) -> None:
        """SIP-14, SIP-18, SIP-25."""
        with free.row(line), Watcher(free, wire) as alice:
            assert sip_status(alice.subscribe("sip:bob@a.test", 600, line)) == code
            assert alice.until_now() == []

    def test_a_watcher_that_answers_481_is_gone(self, free: Target, wire: Wire) -> None:
        """SIP-22."""
        with free.row("SIP-22"), Watcher(free, wire) as alice, Watcher(free, wire, "dave") as dave:
            request = alice.sign(
                alice.build(
                    "SUBSCRIBE", "sip:dave@a.test", "Event: presence", "Expires: 600", f"Contact: {alice.contact}"
                )
            )
            answer = alice.ask(request)
            notify = alice.hear()
            alice.reply(notify, "481 Subscription Does Not Exist")
            assert sip_status(alice.again(answer, 600)) == 481
            told = dave.publish(pidf("dave"))
            assert alice.until_now() == []
            dave.publish(etag=header(told, "SIP-ETag"), expires=0)


@pytest.mark.parametrize("wire", WIRES)
class TestPublishing:
    @pytest.mark.parametrize("name", [name for name, (_, _, hint) in HOSTILE.items() if not hint])
    def test_a_hostile_document(self, free: Target, wire: Wire, name: str) -> None:
        """N-18: 400 with a sentence; what was said before stands."""
        before, inside, _ = HOSTILE[name]
        who = next(_publishers)
        start = pidf(who, more="@@").index(b"<presence")
        raw = b"<?xml version='1.0'?>" + before + pidf(who, more="@@")[start:].replace(b"@@", inside)
        raw = raw if name != "unclosed" else raw.removesuffix(b"</presence>")
        wire = wire if len(raw) < 12_000 else "tcp"  # larger than a datagram the server reads
        with free.row("N-18"), Watcher(free, wire, who) as bob:
            good = bob.publish(pidf(who, more="<note>good</note>"))
            etag = header(good, "SIP-ETag")
            bad = bob.publish(raw, etag)
            assert sip_status(bad) == 400
            assert '399 comity "The presence document cannot be read' in header(bad, "Warning")
            kept = bob.publish(etag=etag)
            assert sip_status(kept) == 200
            assert sip_status(bob.publish(etag=header(kept, "SIP-ETag"), expires=0)) == 200

    def test_another_type(self, free: Target, wire: Wire) -> None:
        """N-18: 415 with what is taken."""
        with free.row("N-18"), Watcher(free, wire, "dave") as bob:
            answer = bob.publish(b"open", kind="text/plain")
            assert (sip_status(answer), PIDF in header(answer, "Accept")) == (415, True)

    def test_a_note_as_pjsip_writes_it(self, free: Target, wire: Wire) -> None:
        """COMPAT pjsip 2.15: "&" and "<" as they are; refused, and the answer says where it breaks."""
        with free.row("pjsip"), Watcher(free, wire, "dave") as dave:
            for note in ("Tom & Jerry", "1 < 2"):
                answer = dave.publish(pidf("dave", more=f"<note>{note}</note>"))
                assert sip_status(answer) == 400
                assert "cannot be read" in header(answer, "Warning")

    def test_somebody_elses(self, free: Target, wire: Wire) -> None:
        """N-19, ACL-22: the document about another, the Request-URI of another."""
        with free.row("N-19"), Watcher(free, wire) as alice:
            assert sip_status(alice.publish(pidf("bob"))) == 403
            assert sip_status(alice.publish(pidf("alice"), uri="sip:bob@a.test")) == 403
            assert sip_status(alice.publish(pidf("alice"), uri="sip:alice@b.test")) == 404

    def test_ten_years(self, free: Target, wire: Wire) -> None:
        """N-22: an hour is granted, and no timestamp of the future is told."""
        with free.row("N-22"), Watcher(free, wire, "dave") as dave, Watcher(free, wire) as alice:
            told = dave.publish(
                pidf("dave", more="<timestamp>2099-01-01T00:00:00Z</timestamp>"), expires=10 * 365 * 86400
            )
            assert (sip_status(told), header(told, "Expires")) == (200, "3600")
            alice.subscribe("sip:dave@a.test", 0)
            notify = alice.next_notify()
            assert b"open" in body(notify)
            assert b"2099" not in body(notify)
            dave.publish(etag=header(told, "SIP-ETag"), expires=0)

    def test_a_tag_that_is_none_and_a_flood(self, free: Target, wire: Wire) -> None:
        """N-25: 412; a hundred at once are answered 503 with Retry-After, and the last good state stands."""
        with free.row("N-25"), Watcher(free, wire, f"flood-{wire}") as carol, Watcher(free, wire) as alice:
            assert sip_status(carol.publish(pidf(carol.user), "nosuch")) == 412
            etag = header(carol.publish(pidf(carol.user)), "SIP-ETag")
            answers = []
            for _ in range(100):
                answer = carol.publish(etag=etag)
                etag = header(answer, "SIP-ETag") or etag
                answers.append(answer)
            refused = [answer for answer in answers if sip_status(answer) == 503]
            assert len(refused) > 50
            assert all(int(header(answer, "Retry-After")) >= 1 for answer in refused)
            alice.subscribe(carol.aor, 0)
            assert b"open" in body(alice.next_notify())


def test_time_tells_nothing(target: Target) -> None:
    """N-12, N-02: a SUBSCRIBE for somebody who is there and does not answer takes as long as for nobody, within what the machine's
    own noise allows; taken turn by turn so that both see the same machine."""
    with Watcher(target, "tcp") as alice:

        def ask(is_there: bool) -> None:
            name = "bob" if is_there else "nosuch"
            answer = alice.subscribe(f"sip:{name}@a.test", 0, call_id=f"Call-ID: {secrets.token_hex(8)}")
            assert sip_status(answer) == 200

        assert_same_time(ask, alice.next_notify, turns=60, ratio=0.25)


def test_nobody_is_open_after_a_crash(tmp_path_factory: pytest.TempPathFactory) -> None:
    """N-17, OPS-30: killed while "open" is published; the watcher hears "closed" in the dialog it had, under a higher CSeq."""
    limits = "presence_interval = 1\n[policy]\npresence_default = 'everyone'"
    target = Target(tmp_path_factory.mktemp("crash"), limits)
    target.canary.stop()
    try:
        with Watcher(target, "udp") as alice, Watcher(target, "udp", "bob") as bob:
            bob.publish(pidf())
            first = alice.subscribe("sip:bob@a.test")
            before = alice.next_notify()
            assert b"open" in body(before)
            target.server.kill()
            target.server.start()
            begun = time.monotonic()
            alice.datagrams.sock.settimeout(60)
            after = alice.next_notify()
            assert time.monotonic() - begun < 60
            assert b"<basic>closed</basic>" in body(after)
            assert header(after, "Call-ID") == header(before, "Call-ID")
            assert int(header(after, "CSeq").split()[0]) > int(header(before, "CSeq").split()[0])
            assert sip_status(alice.again(first, 60)) == 200
    finally:
        target.server.stop()
