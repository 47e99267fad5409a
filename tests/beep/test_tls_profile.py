"""``beep/tls_profile.py``: RFC 3080 section 3.1, both sides."""

from __future__ import annotations

import pytest

from comity.beep import BeepOptions, BeepSession, CloseWanted, SessionEnded
from comity.beep.events import TlsRefused, TlsWanted, TuningEvent
from comity.beep.tls_profile import TLS, TlsClient, TlsServer

from .wires import GREETING, URI, XML, Raw, data_frames, each, element, events, listening, sent, start


class Server:
    """A listener whose peer is octets, with the machine in front of it."""

    def __init__(self, *, has_tls: bool = True, channels: int = 0) -> None:
        self.session, self.seqno = listening(channels)
        self.reports: list[TuningEvent] = []
        self.machine = TlsServer(self.session, self.reports.append, has_tls)
        sent(self.session)

    def hear(self, octets: bytes) -> None:
        self.session.receive_data(octets, 0.0)
        for event in each(self.session):
            if isinstance(event, SessionEnded):
                break
            assert self.machine.handle(event), event

    def ask(self, content: str, *, behind: bytes = b"") -> list[Raw]:
        self.hear(start(1, TLS, seqno=self.seqno, content=content) + behind)
        return data_frames(sent(self.session))


def client() -> tuple[BeepSession, TlsClient, list[TuningEvent]]:
    session = BeepSession("initiator", BeepOptions(), 0.0)
    reports: list[TuningEvent] = []
    machine = TlsClient(session, reports.append)
    session.receive_data(GREETING, 0.0)
    events(session)
    machine.start("a.test")
    return session, machine, reports


def answer(session: BeepSession, machine: TlsClient, octets: bytes) -> None:
    session.receive_data(octets, 0.0)
    for event in each(session):
        assert machine.handle(event) or isinstance(event, SessionEnded)


def profile(content: str) -> bytes:
    inside = f"<profile uri='{TLS}'>\r\n    <![CDATA[{content}]]>\r\n</profile>"
    return Raw("RPY", 0, 1, ".", 52, XML + inside.encode()).octets


def test_ready_and_proceed_in_the_start_of_the_channel() -> None:
    """APEX-7: RFC 3080 section 3.1.1; then a new greeting and no channel of before."""
    server = Server()
    (frame,) = server.ask("<ready />")
    made = element(frame.payload)
    assert (frame.keyword, made.tag, made.attrib, made.text) == ("RPY", "profile", {"uri": TLS}, "<proceed/>")
    assert server.reports == [TlsWanted()]
    assert sent(server.session) == b""
    server.session.reset(1.0, BeepOptions(profiles=("urn:secret",)))
    (greeting,) = data_frames(sent(server.session, 1.0))
    assert [child.attrib["uri"] for child in element(greeting.payload)] == ["urn:secret"]


def test_ready_in_a_message_of_its_own() -> None:
    """RFC 3080 section 6.2: messages starting exchanges: "ready"."""
    server = Server()
    (frame,) = server.ask("")
    assert element(frame.payload).text is None
    server.hear(Raw("MSG", 1, 0, ".", 0, XML + b"<ready version='1.2'/>").octets)
    (frame,) = data_frames(sent(server.session))
    assert (frame.keyword, frame.channel, element(frame.payload).tag) == ("RPY", 1, "proceed")
    assert server.reports == [TlsWanted()]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("<ready version='oops'/>", "501"),
        ("<ready version='2'/>", "504"),
        ("<ready>x</ready>", "501"),
        ("<proceed/>", "501"),
        ("<ready", "500"),
    ],
)
def test_a_poor_ready_is_an_error_inside_the_profile(content: str, code: str) -> None:
    """RFC 3080 section 3.1.1: "a positive reply is sent (as channel creation succeeded)"; it may be tried again."""
    server = Server()
    (frame,) = server.ask(content)
    made = element(frame.payload)
    assert (frame.keyword, made.tag) == ("RPY", "profile")
    assert f'code="{code}"' in (made.text or "").replace("'", '"')
    assert server.reports == []
    server.hear(Raw("MSG", 1, 0, ".", 0, XML + b"<ready version='-'/>").octets)
    (frame,) = data_frames(sent(server.session))
    assert (frame.keyword, element(frame.payload).attrib["code"]) == ("ERR", "501")
    server.hear(Raw("MSG", 1, 1, ".", len(XML) + 20, XML + b"<ready/>").octets)
    assert server.reports == [TlsWanted()]


def test_octets_behind_ready_end_the_session() -> None:
    """P-12, T12: whole frames and pieces alike, and nothing is answered."""
    for behind in (b"M", GREETING, start(3, URI, msgno=2, seqno=400)):
        server = Server()
        assert server.ask("<ready/>", behind=behind) == []
        assert server.reports == []
        assert server.session.is_ended


def test_octets_behind_proceed_end_the_session() -> None:
    """P-12 at the client."""
    session, machine, reports = client()
    answer(session, machine, profile("<proceed />") + b"R")
    assert reports == []
    assert session.is_ended


def test_the_client_says_nothing_behind_ready() -> None:
    """RFC 3080 section 3.1.3.1, windows included."""
    session, machine, reports = client()
    frames = data_frames(sent(session))
    asked = element(frames[-1].payload)
    assert asked.attrib["serverName"] == "a.test"
    assert asked[0].text == "<ready/>"
    session.receive_data(Raw("RPY", 0, 1, "*", 52, (XML + f"<profile uri='{TLS}'>".encode()).ljust(3000)).octets, 0.0)
    assert sent(session) == b""
    answer(session, machine, Raw("RPY", 0, 1, ".", 3052, b"<![CDATA[<proceed/>]]></profile>").octets)
    assert sent(session) == b""
    assert reports == [TlsWanted()]
    session.reset(0.0)
    assert [frame.keyword for frame in data_frames(sent(session))] == ["RPY"]


def test_a_refusal_is_told_and_the_session_goes_on() -> None:
    for octets in (
        profile("<error code='501'>version attribute\r\npoorly formed in &lt;ready&gt; element</error>"),
        Raw("ERR", 0, 1, ".", 52, XML + b"<error code='550'>no</error>").octets,
    ):
        session, machine, reports = client()
        sent(session)
        answer(session, machine, octets)
        (refused,) = reports
        assert isinstance(refused, TlsRefused)
        assert refused.code in (501, 550)
        assert not session.is_ended
        assert len(data_frames(sent(session))) == (refused.code == 501), "the channel is closed if there is one"


def test_nonsense_instead_of_proceed_ends_the_session() -> None:
    for content in ("", "<ok/>", "<proceed>", "<!DOCTYPE a><proceed/>"):
        session, machine, reports = client()
        sent(session)
        answer(session, machine, profile(content))
        assert session.is_ended
        assert reports == []


def test_without_a_certificate_or_twice_it_is_refused() -> None:
    for server in (Server(has_tls=False), Server()):
        if server.ask("<ready version='-'/>")[0].keyword == "RPY":
            server.hear(
                start(
                    3,
                    TLS,
                    msgno=2,
                    seqno=server.seqno + len(data_frames(start(1, TLS, content="<ready version='-'/>"))[0].payload),
                )
            )
            (frame,) = data_frames(sent(server.session))
            assert element(frame.payload).attrib["code"] == "550"


def test_after_a_sign_in_tls_ends_the_session() -> None:
    """P-18, RFC 3080 section 4.1."""
    server = Server()
    server.session.identity = "alice"
    assert server.ask("<ready/>") == []
    assert server.session.is_ended


def test_ready_waits_for_nothing_else() -> None:
    """RFC 3080 section 3.1.3.1: pending replies come first; we refuse instead of waiting."""
    server = Server(channels=1)
    server.session.receive_data(Raw("MSG", 1, 0, ".", 0, b"\r\n?").octets, 0.0)
    events(server.session)
    server.hear(start(3, TLS, msgno=2, seqno=server.seqno, content="<ready/>"))
    (frame,) = data_frames(sent(server.session))
    assert "450" in (element(frame.payload).text or "")
    assert server.reports == []


def test_the_channel_may_be_closed() -> None:
    server = Server()
    server.ask("")
    seqno = server.seqno + len(data_frames(start(1, TLS))[0].payload)
    server.hear(Raw("MSG", 0, 2, ".", seqno, XML + b"<close number='1' code='200'/>").octets)
    (frame,) = data_frames(sent(server.session))
    assert element(frame.payload).tag == "ok"
    assert not server.machine.handle(CloseWanted(1, 200))
