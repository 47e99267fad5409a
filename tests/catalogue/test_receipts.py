"""I-01 … I-10 and T21: receipts between a SIP phone, an XMPP client and an APEX application, the honest ones and all others.

What is said by each is written from RFC 5438, XEP-0184 and XEP-0333, as stock programs say it: Linphone tells of every text by a
bare ``message/imdn+xml``, compressed, about the Call-ID it saw.
"""

from __future__ import annotations

import asyncio
import html
import itertools
import re
import zlib
from collections.abc import Iterator

import pytest

from tests.catalogue.harness import Target
from tests.catalogue.raw import RawXmpp, sip_status
from tests.catalogue.sip_agent import Agent, header
from tests.paths.kit import BOB

RATES = "user_messages = 100000\nuser_message_burst = 100000"
IMDN = "urn:ietf:params:xml:ns:imdn"
ASKING = "<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("receipts"), RATES, ("carol", "dora"))
    yield target
    target.check_canary()
    target.close()


def document(about: str, kind: str = "delivery", status: str = "delivered") -> bytes:
    """A notification as Linphone writes it, and shorter."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><imdn xmlns="{IMDN}"><message-id>{about}</message-id>'
        f"<datetime>2026-01-02T03:04:05Z</datetime><{kind}-notification><status><{status}/></status>"
        f"</{kind}-notification></imdn>"
    ).encode()


def tell(phone: Phone, body: bytes, to: str = "sip:alice@a.test", *lines: str) -> int:
    """Send a notification; the status code."""
    given = lines or ("Content-Type: message/imdn+xml", "Content-Encoding: deflate", "Priority: non-urgent")
    packed = zlib.compress(body) if not lines else body
    return phone.say(phone.build("MESSAGE", to, *given, body=packed))


def until_mark(client: RawXmpp) -> bytes:
    """Everything that comes before the answer to a question asked now: what is not here was not sent."""
    client.send(f"<message to='{client.jid}' type='chat'><body>the mark</body></message>".encode())
    return client.until(rb"<body[^>]*>the mark</body>.*?</message>")


class Phone(Agent):
    """A phone that signs out when it goes."""

    def __init__(self, target: Target, user: str = "alice", *accept: str) -> None:
        super().__init__(target, "tcp", user)
        self._told: list[bytes] = []
        self.register(*accept)

    def request(self) -> bytes:
        """The next request of the server's, answered with 200."""
        heard = self._told.pop(0) if self._told else self.hear()
        self.reply(heard)
        return heard

    def unheard(self) -> list[bytes]:
        """Requests that came and were not looked at."""
        return [one for one in (*self._told, *self.rest()) if one.startswith(b"MESSAGE")]

    def say(self, request: bytes) -> int:
        """Send a request with credentials; the status code, whatever comes between."""
        self.send(self.sign(request))
        while not (heard := self.hear()).startswith(b"SIP/2.0"):
            self._told.append(heard)
        return sip_status(heard)

    def close(self) -> None:
        self.send(self.sign(self.build("REGISTER", "sip:a.test", "Contact: *", "Expires: 0", to=f"To: <{self.aor}>")))
        while b"REGISTER" not in self.hear():
            pass
        super().close()


class Juliet(RawXmpp):
    """Alice by XMPP, available."""

    def __init__(self, target: Target, user: str = "alice") -> None:
        super().__init__(target, "bound", user)
        self.send(b"<presence/>")


class TestAnXmppProgramAsks:
    """XEP-0184 and XEP-0333, answered by a phone (IMDN-2, IMDN-9, IMDN-13)."""

    def sent(self, juliet: Juliet, phone: Phone, id: str = "m1", wish: str = ASKING) -> str:
        """Alice writes to Bob's phone, asking; the Call-ID it saw. The phone's 200 alone tells her nothing."""
        body = f"<message to='bob@a.test' type='chat' id='{id}'><thread>t7</thread><body>hi</body>{wish}</message>"
        juliet.send(body.encode())
        request = phone.request()
        assert b"<received" not in until_mark(juliet)
        return header(request, "Call-ID")

    def test_a_phones_receipts_reach_her_with_her_own_id_once_each(self, target: Target) -> None:
        """IMDN-2, IMDN-9, IMDN-13, I-03: two notifications, each told once, as the same people say them again."""
        with target.row("I-03", stores=True), Juliet(target) as juliet, Phone(target, "bob") as phone:
            about = self.sent(juliet, phone, "a@b/1")
            assert about not in ("t7", "a@b/1")
            assert tell(phone, document(about)) == 202
            got = juliet.until(rb"</message>").decode()
            assert re.search(r"<received xmlns='urn:xmpp:receipts' id='a@b/1'/>", got), got
            assert "from='bob@a.test'" in got
            assert "type='chat'" in got
            assert "<body" not in got
            assert tell(phone, document(about, "display", "displayed")) == 202
            got = juliet.until(rb"</message>").decode()
            assert "<displayed xmlns='urn:xmpp:chat-markers:0' id='a@b/1'/>" in got
            for _ in range(2):
                assert tell(phone, document(about)) == 202
                assert tell(phone, document(about, "display", "displayed")) == 202
                assert tell(phone, document(about, "delivery", "failed")) == 202  # IMDN-6: not both
            assert b"bob@a.test" not in until_mark(juliet)

    def test_what_she_did_not_ask_is_not_told(self, target: Target) -> None:
        """IMDN-6, IMDN-13."""
        request = "<request xmlns='urn:xmpp:receipts'/>"
        with target.row("I-03 unasked", stores=True), Juliet(target) as juliet, Phone(target, "bob") as phone:
            for wish, told in (("", 0), (request, 1)):
                about = self.sent(juliet, phone, "m2", wish)
                for kind, status in (("display", "displayed"), ("processing", "processed"), ("delivery", "delivered")):
                    tell(phone, document(about, kind, status))
                assert until_mark(juliet).count(b"bob@a.test") == told

    def test_nobody_else_says_it_of_her_message(self, target: Target) -> None:
        """I-01, I-10, T21: by the recipient, to the sender, about what he was sent; no other word counts or makes an answer."""
        with (
            target.row("I-01", stores=True),
            Juliet(target) as juliet,
            Juliet(target, "dora") as dora,
            Phone(target, "bob") as phone,
            Phone(target, "carol") as carol,
        ):
            about = self.sent(juliet, phone)
            strange = "01890a5d-ac96-774b-bcce-b302099a8057"
            assert tell(carol, document(about)) == 202  # not her message
            assert tell(phone, document(about), "sip:dora@a.test") == 202  # not whom it was from
            assert tell(phone, document(strange)) == 202
            assert tell(phone, document(about, "delivery", "forbidden")) == 202
            forged = f"<received xmlns='urn:xmpp:receipts' id='imdn-{about}'/>"
            dora.send(f"<message to='alice@a.test'>{forged}</message>".encode())
            until_mark(dora)
            assert b"urn:xmpp:receipts" not in until_mark(juliet)
            assert tell(phone, document(about)) == 202
            assert b"<received" in juliet.until(rb"</message>")

    @pytest.mark.parametrize(
        "body",
        [
            b"<!DOCTYPE imdn><imdn xmlns='urn:ietf:params:xml:ns:imdn'/>",
            document("x").replace(b"ns:imdn", b"ns:other"),
            document("x").replace(b"<delivered/>", b"<delivered/><failed/>"),
            document("x").replace(b"<delivered/>", b"<displayed/>"),
            document("x").replace(b"<message-id>x</message-id>", b""),
            document("x" * 300),
            document("x") + b" " * 20_000,
            b"hello",
        ],
    )
    def test_what_is_no_notification_is_refused(self, target: Target, body: bytes) -> None:
        """I-07."""
        with target.row("I-07"), Phone(target, "bob") as phone:
            assert tell(phone, body) == 400


class TestAPhoneAsks:
    """RFC 5438 requests in an object, under any prefix (IMDN-1), answered by an XMPP program (IMDN-13)."""

    HEADS = (
        "From: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\nDateTime: 2026-01-02T03:04:05-05:00\r\n"
        "NS: q <urn:ietf:params:imdn>\r\nq.Message-ID: 34jk324j\r\n"
        "q.Disposition-Notification: positive-delivery, negative-delivery , display,processing,wink\r\n"
    )

    counter = itertools.count()

    def send(self, phone: Phone, heads: str = HEADS, content: str = "Content-type: text/plain\r\n\r\nhello") -> int:
        self.id = f"34jk324j{next(self.counter)}"  # the same object again would be a repeat
        body = f"{heads}\r\n{content}".replace("34jk324j", self.id).encode()
        return phone.say(phone.message(body, "Content-Type: message/cpim", "Accept: message/cpim"))

    def test_receipt_and_marker_come_as_notifications_about_her_message(self, target: Target) -> None:
        """IMDN-1, IMDN-3 to IMDN-5, I-03, I-10: from the recipient's program, at most one a kind, and none is asked for one."""
        with (
            target.row("I-10", stores=True),
            Phone(target, "alice", "Accept: message/cpim, text/plain") as phone,
            Juliet(target, "bob") as bob,
            Juliet(target, "carol") as carol,
        ):
            assert self.send(phone) in (200, 202)
            got = bob.until(rb"hello</body>.*?</message>").decode()
            assert "<request xmlns='urn:xmpp:receipts'/>" in got
            assert "<markable xmlns='urn:xmpp:chat-markers:0'/>" in got
            id = re.search(r" id='(imdn-[^']*)'", got)
            assert id, got
            assert "34jk324j" not in id[1]
            receipt = f"<received xmlns='urn:xmpp:receipts' id='{id[1]}'/>"
            marker = f"<displayed xmlns='urn:xmpp:chat-markers:0' id='{id[1]}'/>"
            carol.send(f"<message to='alice@a.test'>{receipt}</message>".encode())  # not hers to say
            until_mark(carol)
            for said, status in ((receipt, b"<delivered/>"), (marker, b"<displayed/>")):
                for _ in range(2):
                    bob.send(f"<message to='alice@a.test/x' type='chat'>{said}</message>".encode())
                told = phone.request()
                assert status in told, told
                assert f"<message-id>{self.id}</message-id>".encode() in told
                assert b"<datetime>2026-01-02T03:04:05-05:00</datetime>" in told
                assert b"<recipient-uri>im:bob@a.test</recipient-uri>" in told
                assert b"From: <im:comity@a.test>" in told  # who made it
                assert b"Content-Disposition: notification" in told
                assert b"Disposition-Notification" not in told  # IMDN-4
            until_mark(bob)
            assert phone.unheard() == []

    def test_what_waits_and_what_fails_is_told(self, target: Target) -> None:
        """IMDN-9, IMDN-10, GW-12: "stored" for somebody away, "failed" after a refusal that came later than our yes."""
        with target.row("IMDN-10", stores=True), Phone(target, "alice", "Accept: message/cpim") as phone:
            assert self.send(phone) == 202
            told = phone.request()
            assert b"<processing-notification><status><stored/>" in told
            with Juliet(target, "bob") as bob:
                got = bob.until(rb"hello</body>.*?</message>").decode()
                id = re.search(r" id='(imdn-[^']*)'", got)
                assert id, got
                error = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
                bob.send(f"<message type='error' to='alice@a.test' id='{id[1]}'>{error}</message>".encode())
                told = phone.request()
                assert b"<delivery-notification><status><failed/>" in told
                assert f"<message-id>{self.id}</message-id>".encode() in told

    @pytest.mark.parametrize(
        ("heads", "content"),
        [
            (HEADS.replace("q.Message-ID: 34jk324j\r\n", ""), None),
            (HEADS.replace("DateTime: 2026-01-02T03:04:05-05:00\r\n", ""), None),
            (HEADS.replace("urn:ietf:params:imdn", "urn:example:imdn"), None),
            (re.sub("q.Disposition.*\r\n", "q.Disposition-Notification: wink\r\n", HEADS), None),
        ],
    )
    def test_without_what_a_request_needs_none_is_asked(self, target: Target, heads: str, content: str | None) -> None:
        """IMDN-1, IMDN-3: no request to the recipient's program, so none is answered."""
        with target.row("IMDN-1", stores=True), Phone(target) as phone, Juliet(target, "bob") as bob:
            assert self.send(phone, heads) in (200, 202)
            got = bob.until(rb"hello</body>.*?</message>")
            assert b"urn:xmpp:receipts" not in got
            assert b"imdn-" not in got

    def test_a_notification_that_asks_for_one_gets_none(self, target: Target) -> None:
        """I-04, IMDN-4."""
        content = "Content-type: message/imdn+xml\r\n\r\n" + document("12345").decode()
        with (
            target.row("I-04", stores=True),
            Phone(target, "alice", "Accept: message/cpim") as phone,
            Juliet(target, "bob") as bob,
        ):
            self.send(phone, self.HEADS, content)
            until_mark(bob)
            assert phone.unheard() == []

    def test_an_encrypted_message_is_answered_by_nobody_but_its_reader(self, target: Target) -> None:
        """IMDN-11, I-08."""
        content = "Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\nMIIB"
        with (
            target.row("I-08", stores=True),
            Phone(target, "alice", "Accept: message/cpim") as phone,
            Juliet(target, "bob") as bob,
        ):
            assert self.send(phone, self.HEADS, content) in (200, 202)
            got = bob.until(rb"</e2e>.*?</message>")
            assert b"urn:xmpp:receipts" not in got
            assert b"'imdn-" not in got

    def test_an_applications_ok_is_its_receipt(self, target: Target) -> None:
        """IMDN-13: APEX's statusResponse 250 says no more than that the application took it. Who got the object whole is not
        answered for: the request is in there (IMDN-6)."""

        async def story() -> None:
            async with asyncio.timeout(15), target.server.client("apex", BOB) as bob:
                with Juliet(target, "dora") as dora, Phone(target, "alice", "Accept: message/cpim") as phone:
                    messages = bob.messages()
                    sent = asyncio.ensure_future(asyncio.to_thread(self.send, phone))
                    assert (await anext(messages)).text == "hello"
                    ask = f"<message to='bob@a.test' id='d1'><body>hello</body>{ASKING}</message>"
                    await asyncio.to_thread(dora.send, ask.encode())
                    assert (await anext(messages)).text == "hello"
                    taken = asyncio.ensure_future(anext(messages))
                    await sent
                    got = await asyncio.to_thread(dora.until, rb"</message>")
                    assert b"<received xmlns='urn:xmpp:receipts' id='d1'/>" in got
                    await asyncio.to_thread(
                        dora.send, b"<message to='alice@a.test' type='chat'><body>next</body></message>"
                    )
                    assert b"next" in await asyncio.to_thread(phone.request), "a receipt would have come before it"
                    taken.cancel()
                    await asyncio.gather(taken, return_exceptions=True)

        with target.row("IMDN-13", stores=True):
            asyncio.run(story())


def test_a_phones_receipt_for_a_phones_text_goes_no_further(target: Target) -> None:
    """I-01: it is about a Call-ID of theirs, and nobody asked; a phone that shows everything as text would show its markup."""
    with (
        target.row("I-01 phones", stores=True),
        Phone(target) as alice,
        Phone(target, "bob") as bob,
        Juliet(target) as desk,
    ):
        alice.send(alice.sign(alice.message("text", call_id="Call-ID: 1Y9I9dqILI")))
        assert header(bob.request(), "Call-ID") == "1Y9I9dqILI"
        assert sip_status(alice.hear()) == 200
        assert tell(bob, document("1Y9I9dqILI")) == 202
        assert alice.unheard() == []
        assert b"imdn" not in until_mark(desk)


def test_strangers_ask_in_vain(target: Target) -> None:
    """IMDN-12: a thousand requests from somebody who proved nothing are answered by nobody."""
    with target.row("IMDN-12", stores=True), Juliet(target, "bob") as bob, Agent(target, "tcp") as stranger:
        heads = TestAPhoneAsks.HEADS.encode() + b"\r\nContent-Type: text/plain\r\n\r\nhello"
        lines = "Content-Type: message/cpim", "Accept: message/cpim"
        for _ in range(20):
            for _ in range(50):
                stranger.send(stranger.message(heads, *lines))
            for _ in range(50):
                assert sip_status(stranger.hear()) in (401, 403, 503)
        assert b"hello" not in until_mark(bob)


INJECTED = "&#13;&#10;X-Injected: 1&#13;&#10;&#13;&#10;body"


def test_line_breaks_of_xmpp_make_no_headers(target: Target) -> None:
    """G-25, T27: in the subject, thread, id and resource, to a phone's request."""
    with target.row("G-25", stores=True), Phone(target, "bob") as phone, RawXmpp(target, "authenticated") as juliet:
        juliet.open()
        juliet.bind("res")
        juliet.send(
            f"<message to='bob@a.test' id='a{INJECTED}' type='chat'><subject>S{INJECTED}</subject>"
            f"<thread>t{INJECTED}</thread><body>text</body></message>".encode()
        )
        request = phone.request()
        head, _, body = request.partition(b"\r\n\r\n")
        assert body == b"text"
        assert b"\r\nX-Injected" not in head
        assert b"Subject: S X-Injected: 1 body" in head


def test_markup_and_controls_of_a_phone_stay_text(target: Target) -> None:
    """G-26: what XML can hold arrives as it was; what it cannot is refused, and the stream goes on."""
    with target.row("G-26", stores=True), Phone(target) as phone, Juliet(target, "bob") as bob:
        text = "]]> & < ' \" &amp; <!-- <body>"
        assert phone.say(phone.message(text)) in (200, 202)
        got = bob.until(rb"</body>.*?</message>").decode()
        shown = re.search(r"<body[^>]*>(.*?)</body>", got)
        assert shown, got
        assert html.unescape(shown[1]) == text
        for bad in ("\ufffe", "\x00", "\x0b"):
            assert phone.say(phone.message(f"bad {bad}")) in (406, 415)
        assert phone.say(phone.message("after it")) in (200, 202)
        bob.until(rb"after it</body>")
