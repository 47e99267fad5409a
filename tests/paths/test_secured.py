"""Secured objects over every ordered pair of bindings: relayed with no key, refused in the words of T8, read by peers.

SEED-2, SEED-3, SEED-4, SEC-2, SEC-26, SEC-27, XMPP-18, XMPP-22, T8, G-02, G-03.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.bindings.base import Transport
from comity.bindings.sip.message import SipRequest
from comity.cli import main
from comity.client import Client, Options, Received, connect, terse, text_object
from comity.client.sip import SipClient
from comity.client.xmpp import XmppClient
from comity.cpim.operations import MessageOperation, MimeObject, Reason, Response, Status
from comity.secure import TrustStore, Verdict, sign, verify
from comity.secure.evidence import DecryptionFailed, NoKey
from comity.secure.opening import decrypt
from comity.secure.sealing import encrypt
from comity.xml import CData, Element
from tests.paths.conftest import FAST
from tests.paths.kit import ALICE, BOB, PASSWORD, ROOT, ServerProcess, Via
from tests.paths.secured import ENCRYPTED, FORMS, SECRET, Safe, secret_object, told
from tests.paths.test_stories import clear, exchange, pairs, run
from tests.paths.xmpp_wire import Wire
from tests.paths.xmpp_wire import run as run_wires

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def safe() -> Iterator[Safe]:
    with tempfile.TemporaryDirectory(prefix="cs-") as name:  # gpg's agent wants a short name
        box = Safe(Path(name))
        yield box
        box.close()


def encoding(thing: MimeObject) -> str:
    """Content-Transfer-Encoding, with one name for those that change nothing: APEX says that outside (RFC 3340 section 4.1)."""
    said = thing.header("content-transfer-encoding")
    return "binary" if said in ("", "7bit", "8bit") else said


@pairs
def test_every_form_arrives_octet_for_octet_and_a_peer_reads_it(
    server: ServerProcess, safe: Safe, source: Via, sink: Via
) -> None:
    """SEED-3, SEED-4, SEC-2, SEC-15, RFC 3923 section 8, RFC 8591 section 5: no node has a key, openssl and gpg do."""
    inside = {form: secret_object() for form in FORMS}
    sent = {form: make(safe, inside[form]) for form, (make, _) in FORMS.items()}

    async def story() -> None:
        got = dict(zip(FORMS, await exchange(server, source, sink, list(sent.values())), strict=True))
        for form, received in got.items():
            assert received.object.octets == sent[form].octets, form
            assert received.object.media_type == sent[form].media_type
            _, read = FORMS[form]
            assert read(safe, received.object) == inside[form].entity, form
            assert encoding(received.object) == encoding(sent[form])

    run(story())


def like_rfc_3862(when: datetime) -> MimeObject:
    """The message of RFC 3862 section 5.1, of our own people and time."""
    lines = (
        "From: MR SANDERS <im:alice@a.test>",
        "To: Depressed Donkey <im:bob@a.test>",
        f"DateTime: {when:%Y-%m-%dT%H:%M:%SZ}",
        "Subject: the weather will be fine today",
        "Subject:;lang=fr beau temps prevu pour aujourd'hui",
        "NS: MyFeatures <mid:MessageFeatures@id.foo.com>",
        "Require: MyFeatures.VitalMessageOption",
        "MyFeatures.VitalMessageOption: Confirmation-requested",
        "MyFeatures.WackyMessageOption: Use-silly-font",
        "",
        "Content-type: text/xml; charset=utf-8",
        "Content-ID: <1234567890@foo.com>",
        "",
        "<body>",
        "Here is the text of my message.",
        "</body>",
    )
    return MimeObject.of("Message/CPIM", "".join(f"{line}\r\n" for line in lines).encode())


@pairs
def test_the_signed_message_of_rfc_3862_crosses(server: ServerProcess, safe: Safe, source: Via, sink: Via) -> None:
    """SEED-4, FMT-45: section 5.2 with a real signature; openssl verifies it, and so do we but for what it requires."""
    thing = like_rfc_3862(datetime.now(UTC))
    signed = safe.multipart_signed(thing)

    async def story() -> None:
        [received] = await exchange(server, source, sink, [signed])
        assert received.object.octets == signed.octets
        assert safe.read_multipart_signed(received.object) == thing.entity
        assert judged(received, safe).signer == ALICE.uri

    run(story())


BOUNDARIES = ["x", "odd : spacing=? yes", "'()+_,-./:=?" * 5, "=" * 70]


@pairs
def test_boundaries_and_headers_inside_are_nobodys_business(
    server: ServerProcess, safe: Safe, source: Via, sink: Via
) -> None:
    """SEC-2, SEC-3, SEC-5: odd boundaries, spaces behind them, a protocol nobody knows; the value outside is the same."""
    part = b"content-TYPE:  Message/CPIM ; x = y\r\nX-Odd:\t1\r\n\r\n" + text_object(ALICE, BOB, "a\n\n").octets
    things = []
    for boundary in BOUNDARIES:
        line = b"--" + boundary.encode()
        octets = b"preamble\r\n" + line + b"  \r\n" + part + b"\r\n" + line + b"\t\r\nContent-Type: x/y\r\n\r\n?\r\n"
        kind = f'multipart/signed; protocol="x/y"; micalg=unknown; boundary="{boundary}"; more=";, "'
        things.append(MimeObject.of(kind, octets + line + b"-- \r\nepilogue\r\n"))

    async def story() -> None:
        got = await exchange(server, source, sink, things)
        assert [received.object.octets for received in got] == [thing.octets for thing in things]
        assert [received.object.content_type for received in got] == [thing.content_type for thing in things]
        assert {judged(received, safe).verdict for received in got} == {"not-checked"}
        assert all(received.text is not None and received.text.startswith("a\r\n") for received in got)

    run(story())


@pytest.mark.parametrize("sink", ["sip", "xmpp"])
@pytest.mark.parametrize("has_cdata", [True, False])
def test_bare_base64_is_decrypted_at_the_far_end(server: ServerProcess, safe: Safe, sink: Via, has_cdata: bool) -> None:
    """XMPP-21: what RFC 3923 section 3.3 shows has no MIME header; openssl opens what arrives."""
    thing = secret_object()
    text = safe.auth_enveloped_base64(thing).octets.decode().replace("\r\n", "\n")
    content: CData | str = CData(f"\n{text}") if has_cdata else f"\n   {text}"
    e2e = Element("{urn:ietf:params:xml:ns:xmpp-e2e}e2e", {}, [content])

    async def story() -> None:
        async with server.client(sink, BOB) as bob:
            alice = await Wire(server, "alice@a.test/phone").open()
            alice.send(Element("{jabber:client}message", {"to": "bob@a.test", "id": uuid.uuid4().hex}, [e2e]), "sent")
            messages = bob.messages()
            received = await anext(messages)
            reading = asyncio.ensure_future(anext(messages))
            await alice.until(lambda: alice.acknowledged == ["sent"])
            while await asyncio.to_thread(server.waiting):
                pass
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            assert safe.open_smime(received.object) == thing.entity

    run_wires(story())


@pytest.mark.parametrize("sink", ["sip", "xmpp"])
def test_encrypted_objects_wait_in_the_store_over_a_kill_and_nothing_can_be_read_there(
    tmp_path: Path, safe: Safe, sink: Via
) -> None:
    """SEED-3, T30: stored, killed, started again, delivered; the text stands in no file of the server."""
    inside = {form: secret_object() for form in sorted(ENCRYPTED)}
    sent = {form: FORMS[form][0](safe, thing) for form, thing in inside.items()}
    with ServerProcess(tmp_path, FAST) as house:
        house.start()

        async def send() -> None:
            async with house.client("sip", ALICE, receive=False) as phone, house.client("xmpp", ALICE) as program:
                for number, thing in enumerate(sent.values()):
                    sender: Client = phone if number % 2 else program
                    assert (await sender.send(thing, BOB)).status is Status.INDETERMINANT

        async def receive() -> None:
            async with house.client(sink, BOB) as bob:
                messages = bob.messages()
                for form, thing in sent.items():
                    received = await anext(messages)
                    assert received.object.octets == thing.octets
                    assert FORMS[form][1](safe, received.object) == inside[form].entity
                reading = asyncio.ensure_future(anext(messages))
                while await asyncio.to_thread(house.waiting):
                    pass
                reading.cancel()

        run(send())
        house.kill()
        files = [path for path in house.directory.rglob("*") if path.is_file()]
        assert any(sent["auth-enveloped"].octets[:64] in path.read_bytes() for path in files), "where is it stored?"
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]
        house.start()
        run(receive())


# --- what a recipient refuses (T8) --------------------------------------------------------------------------------


async def refused(server: ServerProcess, source: Via, sink: Via, thing: MimeObject, safe: Safe) -> Response:
    """Alice sends; Bob's program judges and refuses what its verdict says; what Alice is answered."""
    async with server.client(source, ALICE) as alice, server.client(sink, BOB) as bob:
        answer = alice.send(thing, BOB)
        messages = bob.messages()
        received = await anext(messages)
        verdict = judged(received, safe)
        assert verdict.refusal is not None, verdict
        received.refuse(verdict.refusal, verdict.reason)
        reading = asyncio.ensure_future(anext(messages))
        try:
            response = await answer
            return await reported(alice) if response.status is not Status.FAILURE else response
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def judged(received: Received, safe: Safe) -> Verdict:
    return verify(
        received.object,
        safe.trust,
        now=datetime.now(UTC),
        expected_from=received.from_,
        expected_to=received.to,
        arrived=received.arrived,
    )


async def reported(client: Client) -> Response:
    """The failure that comes as a report, which is taken: an XMPP error after the acknowledgement, a MESSAGE over SIP."""
    messages = client.messages()
    received = await anext(messages)
    reading = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert received.report is not None
    return Response("", Status.FAILURE, received.report.reason, received.report.text)


def broken(thing: MimeObject) -> MimeObject:
    """One bit of the signed text changed."""
    return MimeObject(thing.header_block, thing.octets.replace(b"pay 100", b"pay 900"))


@pairs
def test_a_broken_signature_is_refused_and_the_sender_told_so(
    server: ServerProcess, safe: Safe, source: Via, sink: Via
) -> None:
    """T8, SEC-27: 403 "Signature Not Verified" is not-acceptable with unverified-signature, and back."""
    signed = safe.multipart_signed(text_object(ALICE, BOB, "pay 100"))

    async def story() -> None:
        response = await refused(server, source, sink, broken(signed), safe)
        assert response.reason is told(Reason.SIGNATURE, source, sink)
        assert "signature" in response.text

    run(story())
    assert not server.waiting()


@pairs
def test_an_old_time_under_a_signature_is_refused_and_the_sender_told_so(
    server: ServerProcess, safe: Safe, source: Via, sink: Via
) -> None:
    """SEC-26, T8, RFC 3428 section 11.4: 400 Incorrect Date or Time is not-acceptable with bad-timestamp, and back."""
    long_ago = datetime.now(UTC) - timedelta(minutes=10)
    stale = sign(text_object(ALICE, BOB, "ten minutes ago", when=long_ago), safe.alice, when=long_ago)

    async def story() -> None:
        response = await refused(server, source, sink, stale, safe)
        assert response.reason is told(Reason.TIMESTAMP, source, sink)

    run(story())
    assert not server.waiting()


async def answered(alice: Client, bob: Client, thing: MimeObject, reason: Reason, text: str) -> Response:
    """Bob refuses what Alice sends; what she is told."""
    answer = alice.send(thing, BOB)
    messages = bob.messages()
    received = await anext(messages)
    received.refuse(reason, text)
    reading = asyncio.ensure_future(anext(messages))
    response = await answer
    if response.status is not Status.FAILURE:
        response = await reported(alice)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return response


@pairs
def test_what_cannot_be_decrypted_is_refused_and_the_sender_told_so(
    server: ServerProcess, safe: Safe, source: Via, sink: Via
) -> None:
    """T8, RFC 8591 section 7.3: 493 is bad-request with decryption-failed, and back; every failure in the same words."""
    sealed = safe.auth_enveloped(secret_object())
    changed = MimeObject(sealed.header_block, sealed.octets[:-1] + bytes([sealed.octets[-1] ^ 1]))
    for_somebody_else = encrypt(secret_object(), safe.alice.certificates[:1])
    with pytest.raises(DecryptionFailed) as failed:
        decrypt(changed, [safe.bob])
    with pytest.raises(NoKey):
        decrypt(for_somebody_else, [safe.bob])

    async def story() -> None:
        async with server.client(source, ALICE) as alice, server.client(sink, BOB) as bob:
            for thing in (changed, for_somebody_else, safe.pgp_encrypted(secret_object())):
                response = await answered(alice, bob, thing, Reason.DECRYPTION, str(failed.value))
                assert response.reason is told(Reason.DECRYPTION, source, sink)
                assert response.text == str(failed.value)

    run(story())
    assert not server.waiting()


@pytest.mark.parametrize("source", ["sip", "xmpp"])
def test_a_refusal_survives_a_broken_connection(server: ServerProcess, safe: Safe, source: Via) -> None:
    """T8, XEP-0198: what was refused while the stream was down goes out when it is resumed, before the message counts."""

    async def story() -> None:
        async with server.client(source, ALICE) as alice, server.client("xmpp", BOB) as bob:
            answer = alice.send(safe.pgp_encrypted(secret_object()), BOB)
            messages = bob.messages()
            received = await anext(messages)
            assert isinstance(bob, XmppClient)
            assert bob._link is not None
            bob._link.abort()
            received.refuse(Reason.DECRYPTION, "The object cannot be decrypted.")
            reading = asyncio.ensure_future(anext(messages))
            response = await answer
            if response.status is not Status.FAILURE:
                response = await reported(alice)
            assert response.reason is Reason.DECRYPTION
            while await asyncio.to_thread(server.waiting):
                pass
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    run(story())


@pairs
def test_whoever_says_nothing_has_taken_it(server: ServerProcess, safe: Safe, source: Via, sink: Via) -> None:
    """XMPP-22, RFC 3923 section 7: success never yields an error, and a recipient may stay silent about the rest."""
    signed = safe.multipart_signed(text_object(ALICE, BOB, "pay 100"))

    async def story() -> None:
        got = await exchange(server, source, sink, [signed, broken(signed)])
        assert [judged(received, safe).verdict for received in got] == ["valid", "bad-signature"]

    run(story())


# --- an attacked link (SEED-2) ------------------------------------------------------------------------------------


class Attacked:
    """A TCP relay of its own process in front of one port of the server; it flips a bit of each "pay 100"."""

    def __init__(self, port: int, wanted: str = "pay 100", bit: int = 3) -> None:
        command = [sys.executable, "-m", "comity.demo.relay", str(port), wanted, str(bit)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def __enter__(self) -> Attacked:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(20)


@pytest.mark.parametrize("sink", ["sip", "xmpp"])
@pytest.mark.parametrize("form", ["multipart-signed", "signed-data"])
@pytest.mark.parametrize("is_attacked", [True, False], ids=["attacked", "not"])
def test_an_attacked_link_is_found_out(
    server: ServerProcess, safe: Safe, sink: Via, form: str, is_attacked: bool
) -> None:
    """SEED-2: the proxy changes one bit on the way to the server, for one that is not there it changes nothing."""
    thing = text_object(ALICE, BOB, "pay 100")

    async def story(port: int) -> None:
        signed = FORMS[form][0](safe, thing)
        at = ("127.0.0.1", port)
        alice = connect("sip", ALICE, PASSWORD, server=at, transport="tcp", receive=False)
        async with alice, server.client(sink, BOB) as bob:
            answer = alice.send(signed, BOB)
            messages = bob.messages()
            received = await anext(messages)
            reading = asyncio.ensure_future(anext(messages))
            assert (await answer).status is not Status.FAILURE
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            verdict = judged(received, safe)
            assert verdict.verdict == ("bad-signature" if is_attacked else "valid"), verdict.reason

    with Attacked(server.port("sip", "tcp")[1], "pay 100" if is_attacked else "pay 300") as attacker:
        run(story(attacker.port))


# --- 1300 octets (RFC 3428 section 8, RFC 8591 section 7.1) --------------------------------------------------------


@pytest.mark.parametrize("sink", ["sip", "xmpp"])
def test_over_udp_the_sender_chooses_the_form_that_fits_and_no_hop_does(
    server: ServerProcess, safe: Safe, sink: Via
) -> None:
    """SEC-12, CONSTR-7, SIP-6: signed-data without what the recipient has; too much is refused with the way out."""
    thing = text_object(ALICE, BOB, "hi, Bob, come at noon")
    known = TrustStore(anchors=safe.trust.anchors, known=safe.alice.certificates)
    whole = safe.multipart_signed(thing)
    small = terse(sign(thing, safe.alice, form="signed-data", with_certificate=False, when=datetime.now(UTC)))

    async def story() -> None:
        async with (
            server.client("sip", ALICE, "udp", receive=False) as alice,
            server.client("sip", ALICE, "tcp", receive=False) as roomy,
            server.client(sink, BOB) as bob,
        ):
            assert [alice.has_room(form, BOB) for form in (whole, small)] == [False, True]
            assert roomy.has_room(whole, BOB)
            refused = await alice.send(whole, BOB)
            assert (refused.status, refused.reason) == (Status.FAILURE, Reason.SIZE)
            assert "1300" in refused.text
            assert "TLS or TCP" in refused.text
            messages = bob.messages()
            for sender, form in ((alice, small), (roomy, whole)):
                answer = sender.send(form, BOB)
                received = await anext(messages)
                reading = asyncio.ensure_future(anext(messages))
                assert (await answer).status is not Status.FAILURE
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                messages = bob.messages()
                assert received.object.octets == form.octets
                assert verify(received.object, known, now=datetime.now(UTC), expected_from=ALICE).is_valid
            while await asyncio.to_thread(server.waiting):
                pass

    run(story())


def test_over_udp_an_encrypted_object_goes_in_its_fewest_octets(server: ServerProcess, safe: Safe) -> None:
    """RFC 8591 sections 5 and 7.1: binary; the very octets that base64 would have held, so nothing is encrypted twice."""
    thing = text_object(ALICE, BOB, "hi, Bob")
    sealed = encrypt(thing, safe.bob.certificates[:1], encoding="base64")

    async def story() -> None:
        async with server.client("sip", ALICE, "udp", receive=False) as alice:
            assert [alice.has_room(form, BOB) for form in (sealed, terse(sealed))] == [False, True]
            assert (await alice.send(terse(sealed), BOB)).status is Status.INDETERMINANT
        async with server.client("sip", BOB, "udp") as bob:
            messages = bob.messages()
            received = await anext(messages)
            reading = asyncio.ensure_future(anext(messages))
            while await asyncio.to_thread(server.waiting):
                pass
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert received.object.octets == base64.b64decode(sealed.octets)
        assert safe.open_smime(received.object) == thing.entity

    run(story())


def test_has_room_says_what_send_then_finds(server: ServerProcess) -> None:
    """The estimate of the credentials is on the safe side, and not by much."""

    async def story() -> None:
        async with server.client("sip", ALICE, "udp", receive=False) as alice:
            sizes = [size for size in range(500, 1000) if alice.has_room(text_object(ALICE, BOB, "x" * size), BOB)]
            most = max(sizes)
            fits = await alice.send(text_object(ALICE, BOB, "x" * most), BOB)
            assert fits.status is Status.INDETERMINANT
            over = await alice.send(text_object(ALICE, BOB, "x" * (most + 60)), BOB)
            assert over.reason is Reason.SIZE

    run(story())
    clear(server)


def test_comity_send_signs_in_the_form_that_fits(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-12: over UDP signed-data, over TLS multipart/signed; with its certificate no signature fits 1300 octets."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path))
    monkeypatch.setenv("COMITY_PASSWORD", PASSWORD)
    assert CliRunner().invoke(main, ["keys", "new", ALICE.uri]).exit_code == 0
    got: list[MimeObject] = []

    def send(transport: Transport, *more: str) -> Result:
        host, port = server.port("sip", transport)
        command = ["send", "--from", ALICE.uri, "--to", BOB.uri, "--via", "sip", "--server", f"{host}:{port}"]
        command += ["--transport", transport, "--ca", str(server.authority), "--sign", *more, "noon"]
        return CliRunner().invoke(main, command)

    async def story() -> None:
        async with server.client("xmpp", BOB) as bob:
            messages = bob.messages()
            ways: list[tuple[Transport, list[str]]] = [("udp", ["--no-certificate"]), ("tls", [])]
            for transport, more in ways:
                sending = asyncio.ensure_future(asyncio.to_thread(send, transport, *more))
                got.append((await anext(messages)).object)
                reading = asyncio.ensure_future(anext(messages))
                result = await sending
                assert result.exit_code == 0, result.output
                assert got[-1].fingerprint in result.output
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                messages = bob.messages()
            result = await asyncio.to_thread(send, "udp")
            assert result.exit_code == 1
            assert "sign in by TLS or TCP" in result.stderr

    run(story())
    assert [thing.media_type for thing in got] == ["application/pkcs7-mime", "multipart/signed"]


# --- sips: (RFC 3261 section 26.4.4, RFC 7247 section 8) -----------------------------------------------------------


class SipsClient(SipClient):
    """Alice's phone, which calls people by their sips: URI."""

    def _request(self, operation: MessageOperation, key: str) -> SipRequest:
        request = super()._request(operation, key)
        return SipRequest(request.method, request.uri_text.replace("sip:", "sips:"), request.headers, request.body)


@pytest.mark.parametrize(
    ("source", "sink", "transport", "is_kept"),
    [
        ("tls", "sip", "tls", True),
        ("tls", "xmpp", "tls", True),
        ("tls", "xmpp", "tcp", True),  # STARTTLS: this very device is the end of it
        ("tls", "sip", "tcp", False),
        ("tls", "sip", "udp", False),
        ("tcp", "sip", "tls", False),
        ("tcp", "xmpp", "tls", False),
    ],
)
def test_a_sips_uri_means_tls_to_the_end_or_nothing(
    server: ServerProcess, source: Transport, sink: Via, transport: Transport, is_kept: bool
) -> None:
    """SEC-30: a hop without TLS fails it with 403; nothing is delivered, and the sender knows."""

    async def story() -> None:
        port = server.port("sip", source)
        options = Options(ALICE, PASSWORD, port, source, ca_file=server.authority, receive=False)
        async with SipsClient(options) as alice, server.client(sink, BOB, transport) as bob:
            messages = bob.messages()
            reading = asyncio.ensure_future(anext(messages))
            answer = alice.send(text_object(ALICE, BOB, "by sips:"), BOB)
            if is_kept:
                assert (await reading).text == "by sips:"
                reading = asyncio.ensure_future(anext(messages))
            response = await answer
            if is_kept:
                assert response.status is not Status.FAILURE
            else:
                assert (response.status, response.reason) == (Status.FAILURE, Reason.PROTECTION)
                assert "TLS" in response.text
                async with server.client("xmpp", ALICE, receive=False) as other:  # what was to come would come before
                    sent = other.send(text_object(ALICE, BOB, "after it"), BOB)
                    assert (await reading).text == "after it"
                    reading = asyncio.ensure_future(anext(messages))
                    await sent
            while await asyncio.to_thread(server.waiting):
                pass
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    run(story())
