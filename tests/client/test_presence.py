"""What a client makes of a notification, whatever protocol it came by; and what waits for a slow reader."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from comity.client import ClientError, Judge, Seen, Standing
from comity.client.presence import MOST_WAITING, Watch, look
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import MimeObject
from comity.cpim.presence import PIDF_TYPE, Note
from comity.cpim.presence_state import Availability, PresenceState, state_document
from comity.secure import Identity, TrustStore, VerdictKind, new_identity, sign

BOB = Address.parse("pres:bob@b.test")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def document(state: Availability = Availability.DND, note: str = "", who: Address = BOB) -> MimeObject:
    """What a device of Bob's publishes."""
    made = state_document(who, "ID-x", PresenceState(state, (Note(note),) if note else ()), NOW)
    assert made is not None
    return MimeObject.of(PIDF_TYPE, made.raw)


@pytest.fixture(scope="module")
def bob() -> Identity:
    return new_identity(BOB.with_scheme("im"), when=NOW - timedelta(days=1))


def judge(*trusted: Identity) -> Judge:
    """Somebody who pinned these keys."""
    return Judge(TrustStore(pinned=tuple(identity.certificate for identity in trusted)))


class TestLook:
    """From an entity to what is shown of it."""

    @pytest.mark.parametrize("state", [state for state in Availability if state is not Availability.UNKNOWN])
    def test_every_state_is_read(self, state: Availability) -> None:
        """T9."""
        seen = look(BOB, document(state, "note"), None, NOW)
        assert (seen.standing, seen.availability, seen.note) == (Standing.ACTIVE, state, "note")
        assert seen.verdict is None
        assert len(seen.sha256) == 64

    def test_nothing_means_closed(self) -> None:
        """GW-14."""
        seen = look(BOB, None, None, NOW)
        assert (seen.standing, seen.availability, seen.sha256) == (Standing.ACTIVE, Availability.OFFLINE, "")

    def test_a_document_in_a_message_cpim_is_read(self) -> None:
        inner = document()
        wrapped = wrap(BOB, BOB, inner.octets, inner.content_type, when=NOW, message_id="m1")
        assert look(BOB, wrapped, None, NOW).availability is Availability.DND

    @pytest.mark.parametrize(
        "obj",
        [
            MimeObject.of(PIDF_TYPE, b"<presence"),
            MimeObject.of(PIDF_TYPE, b""),
            MimeObject.of("text/plain", b"busy"),
            MimeObject.of("multipart/signed", b"no boundary"),
            MimeObject.of("application/pkcs7-mime", b"sealed for somebody else"),
            MimeObject(b"", b"untyped"),
            document(who=Address.parse("pres:eve@b.test")),
        ],
    )
    def test_what_says_nothing_about_them_leaves_the_state_unknown(self, obj: MimeObject) -> None:
        """Malformed, sealed, or about somebody else (N-19): shown as that, with its octets."""
        for judging in (None, judge()):
            seen = look(BOB, obj, judging, NOW)
            assert (seen.availability, seen.document) == (Availability.UNKNOWN, None)
            assert seen.reason
            assert seen.object is obj

    def test_a_signature_of_theirs_is_valid(self, bob: Identity) -> None:
        seen = look(BOB, sign(document(), bob, when=NOW), judge(bob), NOW + timedelta(minutes=1))
        assert seen.verdict is not None
        assert (seen.verdict.verdict, seen.availability) == (VerdictKind.VALID, Availability.DND)

    def test_a_signature_of_somebody_else_over_their_state_is_not(self) -> None:
        """SEC-4 for presence: the signer has to be who the document is about."""
        eve = new_identity(Address.parse("im:eve@b.test"), when=NOW - timedelta(days=1))
        seen = look(BOB, sign(document(), eve, when=NOW), judge(eve), NOW)
        assert seen.verdict is not None
        assert not seen.verdict.is_valid

    def test_a_changed_document_is_not(self, bob: Identity) -> None:
        signed = sign(document(Availability.DND), bob, when=NOW)
        forged = MimeObject(signed.header_block, signed.octets.replace(b">dnd<", b">xa<"))
        assert forged != signed
        seen = look(BOB, forged, judge(bob), NOW)
        assert seen.verdict is not None
        assert not seen.verdict.is_valid

    def test_an_old_signature_is_said_to_be_old(self, bob: Identity) -> None:
        """RFC 3923 section 6.9: a server could show what was true an hour ago."""
        seen = look(BOB, sign(document(), bob, when=NOW), judge(bob), NOW + timedelta(hours=1))
        assert seen.verdict is not None
        assert seen.verdict.verdict is VerdictKind.STALE

    def test_what_is_unsigned_is_the_word_of_their_domain(self) -> None:
        seen = look(BOB, document(), judge(), NOW)
        assert seen.verdict is not None
        assert (seen.verdict.verdict, seen.verdict.asserted_by) == (VerdictKind.UNSIGNED, "b.test")


def read(watch: Watch) -> list[Seen]:
    """Everything that waits in an ended watch."""

    async def everything() -> list[Seen]:
        return [seen async for seen in watch.read()]

    return asyncio.run(everything())


class TestWatch:
    """What waits for the reader."""

    def test_the_same_twice_is_one_change(self) -> None:
        watch = Watch(BOB, None)
        for state in (Availability.DND, Availability.DND, Availability.AWAY, Availability.DND):
            watch.show(document(state))
        watch.end()
        shown = [seen.availability for seen in read(watch)]
        assert shown == [Availability.DND, Availability.AWAY, Availability.DND]

    def test_a_slow_reader_loses_the_oldest_and_never_the_last(self) -> None:
        watch = Watch(BOB, None)
        for number in range(MOST_WAITING + 50):
            watch.say(Standing.ENDED, str(number))
        watch.end()
        waiting = read(watch)
        assert len(waiting) == MOST_WAITING
        assert waiting[-1].reason == str(MOST_WAITING + 49)

    def test_what_waits_is_read_before_the_error(self) -> None:
        watch = Watch(BOB, None)
        watch.say(Standing.PENDING)
        watch.end(ClientError("it is gone"))
        watch.say(Standing.ENDED, "too late")

        async def story() -> None:
            changes = watch.read()
            assert (await anext(changes)).standing is Standing.PENDING
            with pytest.raises(ClientError, match="it is gone"):
                await anext(changes)

        asyncio.run(story())
