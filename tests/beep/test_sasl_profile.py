"""``beep/sasl_profile.py``, ``sasl_server.py`` and ``sasl_client.py``: RFC 3080 section 4.1, both sides against each other and against octets."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from xml.etree import ElementTree

import pytest

from comity import sasl
from comity.beep import BeepOptions, BeepSession, Event, GreetingReceived, SessionEnded
from comity.beep.events import (
    CredentialsWanted,
    ExternalCheckWanted,
    PasswordCheckWanted,
    SignInFailed,
    SignInSucceeded,
    TuningEvent,
)
from comity.beep.sasl_client import SaslClient
from comity.beep.sasl_profile import SASL
from comity.beep.sasl_server import SaslOptions, SaslServer
from comity.errors import LocalProtocolError

from .wires import GREETING, XML, Raw, data_frames, each, element, events, read_frames, sent, start

PASSWORD = "pencil ☃"
SECRETS = {name: sasl.derive_secret(PASSWORD, name, b"salt", 4096) for name in ("sha-512", "sha-256", "sha-1")}
END_POINT = hashlib.sha256(b"certificate").digest()


def random(size: int) -> bytes:
    return b"r" * size


@dataclass
class Server:
    """A listener with the machine in front, and somebody who knows alice."""

    end_point: bytes | None = END_POINT
    options: SaslOptions = field(default_factory=lambda: SaslOptions(b"key", iterations=4096))
    reports: list[TuningEvent] = field(default_factory=list)
    proved: str | None = None
    knows: bool = True

    def __post_init__(self) -> None:
        self.session = BeepSession("listener", BeepOptions(), 0.0)
        self.machine = SaslServer(self.session, self.report, self.options, lambda: self.end_point, random)
        self.session.reset(0.0, BeepOptions(profiles=self.machine.profiles))

    def report(self, event: TuningEvent) -> None:
        self.reports.append(event)
        match event:
            case CredentialsWanted():
                if event.authzid not in ("", event.username):
                    self.machine.fail(537, "not authorized to act for another")
                else:
                    self.machine.credentials(SECRETS if event.username == "alice" and self.knows else None)
            case PasswordCheckWanted():
                right = sasl.check_password(event.password, event.hash_name, event.secret)
                self.machine.password_checked(right)
            case ExternalCheckWanted():
                self.machine.external_checked(self.proved if event.authzid in ("", self.proved) else None)

    def handle(self, event: Event) -> None:
        assert self.machine.handle(event) or isinstance(event, GreetingReceived | SessionEnded), event


class Wire:
    """A client of octets in front of a Server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seqnos = {0: 52}
        self.msgno = 0
        server.session.receive_data(GREETING, 0.0)
        self.pump()

    def pump(self) -> list[Raw]:
        for event in each(self.server.session):
            self.server.handle(event)
        frames = list(read_frames(sent(self.server.session)))
        for frame in frames:
            if isinstance(frame, Raw):
                told = b"SEQ %d %d 4096\r\n" % (frame.channel, frame.seqno + len(frame.payload))
                self.server.session.receive_data(told, 0.0)
        return [frame for frame in frames if isinstance(frame, Raw)]

    def _send(self, octets: bytes) -> list[Raw]:
        (frame,) = data_frames(octets)
        self.seqnos[frame.channel] = frame.seqno + len(frame.payload)
        self.server.session.receive_data(octets, 0.0)
        return self.pump()

    def start(self, number: int, *names: str, first: bytes | None = None) -> Raw:
        self.msgno += 1
        content = "" if first is None else blob(first)
        uris = [SASL + name for name in names]
        (frame,) = self._send(start(number, *uris, msgno=self.msgno, seqno=self.seqnos[0], content=content))
        return frame

    def blob(self, channel: int, data: bytes, status: str = "") -> Raw:
        self.msgno += 1
        payload = XML + blob(data, status).encode()
        (frame,) = self._send(Raw("MSG", channel, self.msgno, ".", self.seqnos.get(channel, 0), payload).octets)
        return frame


def blob(data: bytes, status: str = "") -> str:
    attribute = f" status='{status}'" if status else ""
    return f"<blob{attribute}>{base64.b64encode(data).decode()}</blob>"


def inside(frame: Raw) -> ElementTree.Element:
    """What is said inside ``profile``, or in the message itself."""
    found = element(frame.payload)
    return ElementTree.fromstring(found.text or "<nothing/>") if found.tag == "profile" else found


def sign_in(
    server: Server, username: str = "alice", password: str = PASSWORD, external: str | None = None
) -> list[TuningEvent]:
    """Our client against our server; returns the client's reports."""
    session = BeepSession("initiator", BeepOptions(), 0.0)
    reports: list[TuningEvent] = []
    machine = SaslClient(session, reports.append, lambda: server.end_point, random)
    busy = True
    while busy:
        busy = False
        for source, target in ((session, server.session), (server.session, session)):
            octets = sent(source)
            busy |= bool(octets)
            target.receive_data(octets, 0.0)
        for event in events(session):
            if isinstance(event, GreetingReceived):
                if external is None:
                    machine.sign_in(username, password, event.profiles, server_name="a.test")
                else:
                    machine.sign_in_external(external)
            else:
                assert machine.handle(event) or isinstance(event, SessionEnded)
            busy = True
        for event in events(server.session):
            server.handle(event)
            busy = True
    if reports and isinstance(reports[-1], SignInSucceeded):
        assert server.session.channel_uri(1) == "", "the tuning channel is closed behind it"
        assert session.identity == server.session.identity == reports[-1].identity
    return reports


class TestBothSides:
    """APEX-7: SCRAM, PLAIN, EXTERNAL by our client and our server."""

    def test_the_best_mechanism_is_taken(self) -> None:
        for server, mechanism in (
            (Server(), "SCRAM-SHA-512-PLUS"),
            (Server(end_point=b""), "SCRAM-SHA-512"),
            (Server(options=SaslOptions(b"k", ("sha-256",), 4096)), "SCRAM-SHA-256-PLUS"),
            (Server(end_point=None, options=SaslOptions(b"k", iterations=4096, allow_clear=True)), "SCRAM-SHA-512"),
        ):
            assert sign_in(server) == [SignInSucceeded("alice", mechanism)]
            assert server.reports[-1] == SignInSucceeded("alice", mechanism)
            assert server.session.server_name == "a.test"

    def test_plain_under_tls(self) -> None:
        server = Server(end_point=b"", options=SaslOptions(b"k", (), 4096))
        server.machine._options = SaslOptions(
            b"k", iterations=4096
        )  # SCRAM is there for the check, not in the greeting
        assert sign_in(server) == [SignInSucceeded("alice", "PLAIN")]

    def test_external(self) -> None:
        for authzid, proved, expected in (
            ("", "relay.test", SignInSucceeded("", "EXTERNAL")),
            ("relay.test", "relay.test", SignInSucceeded("relay.test", "EXTERNAL")),
            ("other.test", "relay.test", SignInFailed("other.test", 535, "the sign-in failed")),
        ):
            server = Server(options=SaslOptions(b"k", has_external=True), proved=proved)
            session_reports = _external(server, authzid)
            assert session_reports == [expected]

    def test_a_wrong_password_is_535_whoever_it_is(self) -> None:
        for username in ("alice", "nobody"):
            server = Server()
            (failed,) = sign_in(server, username, "wrong")
            assert failed == SignInFailed(username, 535, "the sign-in failed")
            assert not server.session.identity
            assert not server.session.is_ended

    def test_a_server_without_mechanisms(self) -> None:
        (failed,) = sign_in(Server(end_point=None))
        assert isinstance(failed, SignInFailed)
        assert failed.code == 0


def _external(server: Server, authzid: str) -> list[TuningEvent]:
    session = BeepSession("initiator", BeepOptions(), 0.0)
    reports: list[TuningEvent] = []
    machine = SaslClient(session, reports.append, lambda: END_POINT, random)
    for _ in range(6):
        server.session.receive_data(sent(session), 0.0)
        for event in events(server.session):
            server.handle(event)
        session.receive_data(sent(server.session), 0.0)
        for event in events(session):
            if isinstance(event, GreetingReceived):
                machine.sign_in_external(authzid)
            else:
                assert machine.handle(event)
    return reports


class TestServer:
    """Octets against the server."""

    @pytest.mark.parametrize(
        ("end_point", "names", "code"),
        [
            (None, ["PLAIN"], "538"),
            (None, ["SCRAM-SHA-256"], "538"),
            (None, ["X-UNKNOWN"], "550"),
            (END_POINT, ["X-UNKNOWN"], "550"),
            (END_POINT, ["DIGEST-MD5"], "534"),
            (END_POINT, ["ANONYMOUS", "OTP"], "534"),
            (END_POINT, ["EXTERNAL"], "535"),
        ],
    )
    def test_what_is_not_to_be_had(self, end_point: bytes | None, names: list[str], code: str) -> None:
        """X-37, X38, P-18."""
        frame = Wire(Server(end_point)).start(1, *names)
        assert (frame.keyword, element(frame.payload).attrib["code"]) == ("ERR", code)

    def test_plain_needs_tls_even_where_the_rest_does_not(self) -> None:
        """538 on loopback too: the password itself would go in the clear."""
        server = Server(None, SaslOptions(b"k", iterations=4096, allow_clear=True))
        assert SASL + "PLAIN" not in server.machine.profiles
        assert element(Wire(server).start(1, "PLAIN").payload).attrib["code"] == "538"

    def test_the_client_s_order_counts_among_what_we_have(self) -> None:
        found = element(Wire(Server()).start(1, "OTP", "SCRAM-SHA-1", "SCRAM-SHA-256").payload)
        assert found.attrib == {"uri": SASL + "SCRAM-SHA-1"}
        assert found.text is None

    def test_a_second_sign_in_is_520(self) -> None:
        """P-18: on the same channel and on another."""
        wire = Wire(Server())
        assert inside(wire.start(1, "PLAIN", first=sasl.write_plain("alice", PASSWORD))).attrib == {
            "status": "complete"
        }
        assert wire.server.session.identity == "alice"
        assert element(wire.start(3, "PLAIN", first=sasl.write_plain("bob", "x")).payload).attrib["code"] == "520"
        assert element(wire.blob(1, sasl.write_plain("bob", "x")).payload).attrib["code"] == "520"
        assert wire.server.session.identity == "alice"

    def test_a_failure_leaves_the_channel_for_another_try(self) -> None:
        wire = Wire(Server())
        first = inside(wire.start(1, "PLAIN", first=sasl.write_plain("alice", "wrong")))
        assert (first.tag, first.attrib["code"]) == ("error", "535")
        second = wire.blob(1, sasl.write_plain("alice", PASSWORD))
        assert (second.keyword, element(second.payload).attrib) == ("RPY", {"status": "complete"})

    def test_five_failures_are_enough(self) -> None:
        """X-34."""
        wire = Wire(Server())
        wire.start(1, "PLAIN")
        for _ in range(5):
            frame = wire.blob(1, sasl.write_plain("alice", "wrong"))
            assert (frame.keyword, element(frame.payload).attrib["code"]) == ("ERR", "535")
        with pytest.raises(ValueError, match="not enough values"):
            wire.blob(1, sasl.write_plain("alice", PASSWORD))
        assert wire.server.session.is_ended
        assert not wire.server.session.identity

    @pytest.mark.parametrize(
        ("xml", "code"),
        [
            ("<blob>*</blob>", "501"),
            ("<blob status='perhaps'/>", "501"),
            ("<blob status='complete'/>", "501"),
            ("<blob status='abort'/>", "550"),
            ("<blob><x/></blob>", "501"),
            ("<ready/>", "501"),
            ("<blob>AA==</blob>", "501"),
            ("<blob", "500"),
        ],
    )
    def test_a_poor_blob_is_answered_with_its_code(self, xml: str, code: str) -> None:
        wire = Wire(Server())
        wire.start(1, "PLAIN")
        (frame,) = wire._send(Raw("MSG", 1, 0, ".", 0, XML + xml.encode()).octets)
        assert (frame.keyword, element(frame.payload).attrib["code"]) == ("ERR", code)

    def test_a_doctype_in_a_blob_ends_the_session(self) -> None:
        wire = Wire(Server())
        wire.start(1, "PLAIN")
        wire._send(Raw("MSG", 1, 0, ".", 0, XML + b"<!DOCTYPE blob><blob/>").octets)
        assert wire.server.session.is_ended

    def test_acting_for_another_is_537(self) -> None:
        """X-30."""
        wire = Wire(Server())
        assert inside(wire.start(1, "PLAIN", first=b"bob\0alice\0" + PASSWORD.encode())).attrib["code"] == "537"

    def test_accounts_that_cannot_be_asked_are_454(self) -> None:
        server = Server()
        wire = Wire(server)
        server.report = lambda event: server.machine.fail(454, "the account cannot be looked up now")  # type: ignore[method-assign]  # stands for a broken store
        server.machine._emit = server.report
        assert inside(wire.start(1, "PLAIN", first=sasl.write_plain("alice", PASSWORD))).attrib["code"] == "454"

    def test_only_one_exchange_at_a_time(self) -> None:
        """RFC 3080 section 2: "only one tuning channel may be established at any given time"."""
        wire = Wire(Server())
        wire.start(1, "PLAIN")
        assert element(wire.start(3, "PLAIN").payload).attrib["code"] == "550"
        wire.msgno += 1
        close = XML + b"<close number='1' code='200'/>"
        (ok,) = wire._send(Raw("MSG", 0, wire.msgno, ".", wire.seqnos[0], close).octets)
        assert element(ok.payload).tag == "ok"
        assert wire.start(3, "PLAIN").keyword == "RPY"

    def test_verbs_nobody_asked_for(self) -> None:
        server = Server()
        server.machine.credentials(None)  # an answer that comes after its question has gone
        server.machine._emit = server.reports.append
        Wire(server).server.session.receive_data(
            start(1, SASL + "PLAIN", seqno=52, content=blob(sasl.write_plain("alice", "x"))), 0.0
        )
        for event in events(server.session):
            server.handle(event)
        assert server.reports == [CredentialsWanted("alice", "")]
        with pytest.raises(LocalProtocolError):
            server.machine.password_checked(True)


class TestClient:
    """Octets against the client."""

    def client(self) -> tuple[BeepSession, SaslClient, list[TuningEvent]]:
        session = BeepSession("initiator", BeepOptions(), 0.0)
        reports: list[TuningEvent] = []
        machine = SaslClient(session, reports.append, lambda: END_POINT, random)
        session.receive_data(GREETING, 0.0)
        events(session)
        machine.sign_in("alice", PASSWORD, (SASL + "SCRAM-SHA-256",))
        sent(session)
        return session, machine, reports

    @pytest.mark.parametrize(
        "content",
        [
            blob(b"", "complete"),  # it proved nothing
            blob(b"v=AAAA", "complete"),
            blob(b"r=other,s=c2FsdA==,i=4096"),
            blob(b"r=rrr,s=c2FsdA==,i=1"),
            blob(b"", "abort"),
            "<nonsense/>",
            "",
            "<blob>*</blob>",
        ],
    )
    def test_a_server_that_cannot_be_trusted_is_left(self, content: str) -> None:
        """T13."""
        session, machine, reports = self.client()
        inside = f"<profile uri='{SASL}SCRAM-SHA-256'><![CDATA[{content}]]></profile>"
        session.receive_data(Raw("RPY", 0, 1, ".", 52, XML + inside.encode()).octets, 0.0)
        for event in events(session):
            assert machine.handle(event)
        (failed,) = reports
        assert isinstance(failed, SignInFailed)
        assert failed.code == 0
        assert failed.text
        assert session.is_ended

    def test_a_refusal_is_told(self) -> None:
        session, machine, reports = self.client()
        session.receive_data(Raw("ERR", 0, 1, ".", 52, XML + b"<error code='538'>no</error>").octets, 0.0)
        for event in events(session):
            assert machine.handle(event)
        assert reports == [SignInFailed("alice", 538, "no")]

    def test_a_signature_in_a_challenge_of_its_own_is_good_too(self) -> None:
        session, machine, reports = self.client()
        server = sasl.ScramServer("SCRAM-SHA-256", None, False)
        server._offers_plus = False
        first = base64.b64decode(
            base64.b64encode(machine._scram.first())  # type: ignore[union-attr]  # it signs in by SCRAM
        )
        server.first(first)
        challenge = server.challenge(SECRETS["sha-256"], "s")
        text = f"<profile uri='{SASL}SCRAM-SHA-256'><![CDATA[{blob(challenge)}]]></profile>"
        seqno = 0
        session.receive_data(Raw("RPY", 0, 1, ".", 52, XML + text.encode()).octets, 0.0)
        for status in ("", "complete"):
            for event in events(session):
                assert machine.handle(event)
            (frame,) = data_frames(sent(session))
            data = base64.b64decode(element(frame.payload).text or "")
            reply = XML + (blob(server.final(data, True)) if not status else blob(b"", status)).encode()
            session.receive_data(Raw("RPY", 1, frame.msgno, ".", seqno, reply).octets, 0.0)
            seqno += len(reply)
        for event in events(session):
            assert machine.handle(event)
        assert reports == [SignInSucceeded("alice", "SCRAM-SHA-256")]
