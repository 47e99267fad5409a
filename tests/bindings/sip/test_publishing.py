"""PUBLISH (RFC 3903 sections 4 and 6): the operations, the order of the checks, the forms a body may have."""

from __future__ import annotations

import pytest

from comity.cpim.access_entries import AccessEntry
from comity.cpim.address import Address
from comity.service.presence.publications import PublicationLimits
from comity.service.presence.watching import PresenceLimits
from tests.bindings.sip.kit import story
from tests.bindings.sip.presence_kit import ALICE, BOB, PresenceWorld, Watcher, pidf

BOUNDARY = 'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="b1"'


def signed(document: bytes, kind: bytes = b"application/pidf+xml") -> bytes:
    """What a phone that signs writes; nobody on the way looks at the signature."""
    return (
        b"--b1\r\nContent-Type: " + kind + b"\r\n\r\n" + document + b"\r\n--b1\r\n"
        b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b1--\r\n"
    )


class TestOperations:
    @story
    async def test_the_four(self) -> None:
        """SIP-30, SIP-32: initial, refresh, modify, remove; each 2xx has a tag of its own."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await alice.subscribe()
        assert alice.heard() == [("active", "closed")]
        first = await bob.publish(pidf("open"))
        await world.advance(5)
        assert alice.heard() == [("active", "open")]
        refreshed = await bob.publish(etag=first.value("sip-etag") or "")
        await world.advance(5)
        assert alice.heard() == []
        modified = await bob.publish(pidf("open", "lunch"), etag=refreshed.value("sip-etag") or "")
        await world.advance(5)
        assert b"lunch" in alice.notified()[0].body
        removed = await bob.publish(etag=modified.value("sip-etag") or "", expires=0)
        await world.advance(5)
        assert alice.heard() == [("active", "closed")]
        answers = [first, refreshed, modified, removed]
        assert [(a.status_code, a.value("expires")) for a in answers] == [(200, "600")] * 3 + [(200, "0")]
        assert len({a.value("sip-etag") for a in answers}) == 4
        for used in answers:
            assert (await bob.publish(pidf("open"), etag=used.value("sip-etag") or "")).status_code == 412

    @story
    async def test_a_hundred_refreshes(self) -> None:
        """SIP-32: a hundred tags."""
        world = await PresenceWorld(user_publication_burst=500).start()
        bob = Watcher(world, "bob")
        tags = [(await bob.publish(pidf("open"))).value("sip-etag") or ""]
        for _ in range(100):
            tags.append((await bob.publish(etag=tags[-1])).value("sip-etag") or "")
        assert len(set(tags)) == 101
        assert all(tags)

    @story
    async def test_a_tuple_left_out_is_gone(self) -> None:
        """SIP-33."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        both = b'<tuple id="b"><status><basic>open</basic></status><note>second</note></tuple>'
        first = await bob.publish(pidf("open", more=both.decode()))
        await alice.subscribe()
        await world.advance(5)
        assert b"second" in alice.notified()[-1].body
        await bob.publish(pidf("open"), etag=first.value("sip-etag") or "")
        await world.advance(5)
        assert b"second" not in alice.notified()[-1].body

    @story
    async def test_a_lease_is_at_most_an_hour_and_ends(self) -> None:
        """N-22, SIP-32: never longer than asked."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        assert (await bob.publish(pidf(), expires=315_360_000)).value("expires") == "3600"
        assert (await bob.publish(pidf(), expires=None)).value("expires") == "3600"
        short = await bob.publish(pidf("open", "short"), expires=60)
        assert short.value("expires") == "60"
        await world.advance(61)
        assert (await bob.publish(etag=short.value("sip-etag") or "")).status_code == 412
        await alice.subscribe()
        assert b"short" not in alice.notified()[-1].body

    @story
    async def test_nothing_stands_for_no_time(self) -> None:
        """RFC 3903 section 6 step 5: Expires 0 stores nothing; the 2xx has a tag all the same."""
        world = await PresenceWorld().start()
        bob = Watcher(world, "bob")
        answer = await bob.publish(pidf(), expires=0)
        assert (answer.status_code, answer.value("expires")) == (200, "0")
        assert (await bob.publish(etag=answer.value("sip-etag") or "")).status_code == 412


class TestOrder:
    @story
    async def test_the_first_of_several_mistakes_is_told(self) -> None:
        """SIP-31: 404, 489, 400, 412, 423, 415, 400; each request makes all the mistakes behind the one it is told of."""
        world = await PresenceWorld(user_publication_burst=100).start()
        bob = Watcher(world, "bob")
        bad: list[tuple[str, str]] = [("Event", "dialog"), ("SIP-If-Match", "a, b"), ("Expires", "5")]
        answer = await bob.publish(b"x", *bad, kind="text/plain", whom="sip:bob@b.test")
        assert answer.status_code == 404
        codes = []
        for fix in range(6):
            headers = [("Content-Type", "text/plain"), *bad]
            if fix >= 1:
                headers.append(("Event", "presence"))
            if fix >= 2:
                headers.append(("SIP-If-Match", "nosuch"))
            if fix >= 3:
                headers.append(("SIP-If-Match", ""))
            if fix >= 4:
                headers.append(("Expires", "600"))
            body = b"x"
            if fix >= 5:
                body = b""
                headers.append(("Content-Type", ""))
            codes.append((await bob.publish(body, *headers)).status_code)
        assert codes == [489, 400, 412, 423, 415, 400]

    @story
    async def test_an_unknown_event_names_the_known(self) -> None:
        world = await PresenceWorld().start()
        bob = Watcher(world, "bob")
        for event in ("", "Presence", "presence.winfo"):
            answer = await bob.publish(pidf(), ("Event", event))
            assert answer.status_code == 489
            assert "presence" in (answer.value("allow-events") or "")

    @story
    async def test_too_brief_says_how_long(self) -> None:
        world = await PresenceWorld().start()
        answer = await Watcher(world, "bob").publish(pidf(), expires=5)
        assert (answer.status_code, answer.value("min-expires")) == (423, "60")

    @story
    async def test_nobody_publishes_for_another(self) -> None:
        """ACL-22, T19: by the Request-URI, by From, without a password."""
        world = await PresenceWorld().start()
        alice, bob = Watcher(world, "alice"), Watcher(world, "bob")
        assert (await alice.publish(pidf(), whom="sip:bob@a.test")).status_code == 403
        assert (
            await alice.publish(pidf(), ("From", "<sip:bob@a.test>;tag=1"), whom="sip:bob@a.test")
        ).status_code == 403
        stranger = Watcher(world, "carol", password="guess")
        sent = await stranger.send(stranger.request("PUBLISH", "sip:carol@a.test", [("Event", "presence")], pidf()))
        assert stranger.responses[sent].status_code == 401
        etag = (await bob.publish(pidf())).value("sip-etag") or ""
        assert (await alice.publish(etag=etag, expires=0)).status_code == 412
        assert (await bob.publish(etag=etag)).status_code == 200

    @story
    async def test_who_is_permitted_to_publishes_for_another(self) -> None:
        """ACL-22, APEX-25: by an access entry, as long as that stands; a document about the account."""
        world = await PresenceWorld().start()
        alice, rights = Watcher(world, "alice"), world.presence.rights
        entry = await rights.set_entry(Address.parse(BOB), "", "alice@a.test", ("presence:publish",), "")
        assert isinstance(entry, AccessEntry)
        assert (await alice.publish(pidf(entity="pres:alice@a.test"), whom="sip:bob@a.test")).status_code == 403
        answer = await alice.publish(pidf(), whom="sip:bob@a.test")
        assert answer.status_code == 200
        etag = answer.value("sip-etag") or ""
        await rights.set_entry(Address.parse(BOB), "", "alice@a.test", None, entry.last_update)
        assert (await alice.publish(etag=etag, expires=0, whom="sip:bob@a.test")).status_code == 403

    @story
    async def test_too_many(self) -> None:
        """N-25: a hundred at once; what was taken stands."""
        world = await PresenceWorld().start()
        bob = Watcher(world, "bob")
        answers = [await bob.publish(pidf("open")) for _ in range(1)]
        etag = answers[0].value("sip-etag") or ""
        codes = []
        for _ in range(100):
            answer = await bob.publish(etag=etag)
            codes.append(answer.status_code)
            if answer.status_code == 200:
                etag = answer.value("sip-etag") or ""
            else:
                assert int(answer.value("retry-after") or 0) >= 1
        assert set(codes) == {200, 503}
        assert codes.count(503) > 70
        await world.advance(60)
        assert (await bob.publish(etag=etag)).status_code == 200

    @story
    async def test_limits_of_one_presentity(self) -> None:
        limits = PresenceLimits(publications=PublicationLimits(publications=2, document=1000))
        world = await PresenceWorld(limits).start()
        bob = Watcher(world, "bob", "tcp")
        answers = [await bob.publish(pidf()) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 480]
        assert answers[2].value("retry-after")
        large = pidf("open", "x" * 2000)
        assert (await bob.publish(large, etag=answers[0].value("sip-etag") or "")).status_code == 413
        assert (await bob.publish(etag=answers[0].value("sip-etag") or "")).status_code == 200


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"<!DOCTYPE x>" + pidf()[38:], 400),
            (pidf("open", "&nbsp;"), 400),
            (pidf("open", "Tom & Jerry"), 400),
            (pidf("open", "1 < 2"), 400),
            (pidf("open", "<i:include xmlns:i='http://www.w3.org/2001/XInclude' href='file:///etc/passwd'/>"), 400),
            (pidf("open", "<?php x ?>"), 400),
            (b"\xff\xfe" + pidf().decode().encode("utf-16-le"), 400),
            (pidf()[:-5], 400),
            (b"<presence xmlns='urn:x' entity='pres:bob@a.test'/>", 400),
            (b"<presence xmlns='urn:ietf:params:xml:ns:pidf'/>", 400),
            (pidf(more="<a xmlns='u'>" + "<a>" * 100 + "</a>" * 101), 413),
            (pidf(entity="pres:alice@a.test"), 403),
            (pidf(entity="tel:+12"), 403),
            (pidf(entity="sip:bob@a.test"), 200),
        ],
    )
    @story
    async def test_what_cannot_be_read_leaves_the_last_good_state(self, body: bytes, code: int) -> None:
        """N-18, N-19, PRES-14: the answer says what is wrong."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice")
        good = await bob.publish(pidf("open", "still here"))
        answer = await bob.publish(body, etag=good.value("sip-etag") or "")
        assert answer.status_code == code
        if code != 200:
            assert '399 comity "' in (answer.value("warning") or "")
            await alice.subscribe()
            assert b"still here" in alice.notified()[-1].body
            assert (await bob.publish(etag=good.value("sip-etag") or "")).status_code == 200

    @pytest.mark.parametrize(
        ("kind", "body", "code"),
        [
            ("text/plain", b"x", 415),
            ("application/watcherinfo+xml", b"<watcherinfo/>", 415),
            ("multipart/mixed; boundary=b", b"--b\r\n\r\n\r\n--b--", 415),
            (BOUNDARY, signed(b"hello", b"text/plain"), 415),
            (BOUNDARY, signed(pidf("open", "a & b")), 400),
            (BOUNDARY, b"--b1\r\n--b1--\r\n", 400),
            (BOUNDARY, signed(pidf(entity="pres:carol@a.test")), 403),
            ("", b"x", 415),
        ],
    )
    @story
    async def test_other_types(self, kind: str, body: bytes, code: int) -> None:
        """N-18, N-19, SIP-31."""
        world = await PresenceWorld().start()
        answer = await Watcher(world, "bob").publish(body, kind=kind)
        assert answer.status_code == code
        if code == 415:
            assert "application/pidf+xml" in (answer.value("accept") or "")

    @story
    async def test_a_coding_nobody_asked_for(self) -> None:
        world = await PresenceWorld().start()
        answer = await Watcher(world, "bob").publish(pidf(), ("Content-Encoding", "gzip"))
        assert (answer.status_code, answer.value("accept-encoding")) == (415, "identity")

    @story
    async def test_a_signed_document_reaches_who_takes_it_whole(self) -> None:
        """SEED-46: octet for octet; who does not take it gets the server's word."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice, plain = Watcher(world, "bob"), Watcher(world, "alice"), Watcher(world, "alice", port=5070)
        body = signed(pidf("open"))
        assert (await bob.publish(body, kind=BOUNDARY)).status_code == 200
        await alice.subscribe("bob", 600, ("Accept", "application/pidf+xml, multipart/signed"))
        (whole,) = alice.notified()
        assert whole.body == body
        assert whole.content_type == BOUNDARY
        await plain.subscribe(call_id="other")
        (unsigned,) = plain.notified()
        assert unsigned.content_type.startswith("application/pidf+xml")
        assert b"<basic>open</basic>" in unsigned.body

    @pytest.mark.parametrize("kind", ["application/pkcs7-mime; smime-type=enveloped-data", "application/x-pkcs7-mime"])
    @story
    async def test_a_sealed_document_reaches_who_takes_it(self, kind: str) -> None:
        """The server says nothing in its place, and not that he is away."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice, plain = Watcher(world, "bob"), Watcher(world, "alice"), Watcher(world, "alice", port=5070)
        assert (await bob.publish(b"\x30\x80\x00\x01", kind=kind)).status_code == 200
        await alice.subscribe("bob", 600, ("Accept", "application/pidf+xml, application/pkcs7-mime"))
        (sealed,) = alice.notified()
        assert (sealed.body, sealed.content_type) == (b"\x30\x80\x00\x01", kind)
        await plain.subscribe(call_id="other")
        (empty,) = plain.notified()
        assert b"<basic>" not in empty.body

    @story
    async def test_contact_and_record_route_say_nothing(self) -> None:
        """SIP-32."""
        world = await PresenceWorld().start()
        bob = Watcher(world, "bob")
        answer = await bob.publish(pidf(), ("Contact", "<<<"), ("Record-Route", "nonsense"))
        assert answer.status_code == 200
        assert answer.value("record-route") is None
        assert answer.value("contact") is None
