"""P-21 … P-31 (reliability.md section 2.11): APEX elements that break a rule, each on a running server, in words of the RFC.

Every row's session lives on unless the row says otherwise, and goes on to send a message that arrives.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.catalogue.beep import Raw, attach, connect, raw, text_part, text_payload
from tests.catalogue.carriers import NO_RATES
from tests.catalogue.fleet import octet_by_octet, pieces, play
from tests.catalogue.harness import PASSWORD, Inbox, Target
from tests.interop.apex_peer import Application, Data, hopping, option, timing
from tests.interop.apex_peer_beep import BEEP_XML, Broken, Refused

LAUGHS = "<!ENTITY l0 'lol'>" + "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with rates for a catalogue sent in a minute."""
    target = Target(tmp_path_factory.mktemp("apex"), NO_RATES, people=("carol",), domains=("a.test", "b.test"))
    yield target
    target.check_canary()
    target.close()


@pytest.fixture
def alice(target: Target) -> Iterator[Application]:
    """Attached as herself."""
    with attach(connect(target), endpoint="alice@a.test") as application:
        yield application


def lives(application: Application) -> None:
    """The channel still answers, and with what is right."""
    with pytest.raises(Refused, match="550"):
        application.terminate(2147483647)


def refused(application: Application, payload: bytes | str) -> str:
    """The code a payload is refused with; the channel must live on."""
    octets = payload if isinstance(payload, bytes) else BEEP_XML + payload.encode()
    with pytest.raises(Refused) as error:
        application.session.ask(application.channel, octets)
    lives(application)
    return error.value.code


def data(body: str, content: str = "#Content", inner: str = "<data-content Name='Content'><x /></data-content>") -> str:
    """A data element written by hand."""
    return f"<data content='{content}'>{body}{inner}</data>"


PEOPLE = "<originator identity='alice@a.test' /><recipient identity='bob@a.test' />"


def test_data_before_attach_is_refused(target: Target) -> None:
    """P-21: 530, whoever has signed in; the channel lives, and attaching afterwards helps."""
    with target.row("P-21", stores=True), connect(target) as application:
        application.sign_in("alice@a.test", PASSWORD)
        application.open()
        assert refused(application, text_payload("alice@a.test", "bob@a.test", "P-21")) == "530"
        application.attach("alice/p21@a.test")
        application.data("alice/p21@a.test", "bob@a.test", part=text_part("P-21 attached"))


def test_nobody_attaches_without_having_signed_in(target: Target) -> None:
    """P-21's kin: the profile may be opened, but not used."""
    refusal = pytest.raises(Refused, match=r"530|537|538|550")
    with target.row("P-21 anonymous"), connect(target) as application, refusal:
        application.attach("alice@a.test")


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        ("bob@a.test", "537"),
        ("bob/alice@a.test", "537"),
        ("Alice@a.test", "537"),
        ("nobody@a.test", "537"),
        ("alice@b.test", "537"),
        ("apex=presence@a.test", "537"),
        ("apex=report@a.test", "537"),
        ("alice@c.test", "553"),
        ("alice@[127.0.0.1]", "553"),
        ("alice", "501"),
        ("alice@", "501"),
        ("@a.test", "501"),
        ("alice/a/b@a.test", "501"),
        ("", "501"),
        ("a" * 5000 + "@a.test", "501"),
    ],
)
def test_an_endpoint_of_somebody_else_is_refused(target: Target, alice: Application, identity: str, code: str) -> None:
    """P-22, APEX-9: 553 for another domain, 537 for another's endpoint, 501 for what is no endpoint."""
    with target.row(f"P-22 {identity[:20]}"):
        assert refused(alice, f"<attach endpoint='{identity}' transID='5' />") == code


def test_an_endpoint_is_attached_once_and_the_first_stays(target: Target, alice: Application, bob: Inbox) -> None:
    """P-23: 555 for a transaction-identifier in use; 554 for an endpoint in use (RFC 3340, section 4.4.1); the first lives."""
    with target.row("P-23", stores=True):
        assert refused(alice, "<attach endpoint='alice/x@a.test' transID='1' />") == "555"
        with connect(target) as second:
            second.sign_in("alice@a.test", PASSWORD)
            second.open()
            assert refused(second, "<attach endpoint='alice@a.test' transID='1' />") == "554"
        alice.data("alice@a.test", "alice@a.test", part=text_part("to myself"))
        assert alice.receive().body == b"to myself"


@pytest.mark.parametrize(
    "originator", ["bob@a.test", "alice/other@a.test", "carol@b.test", "alice@c.test", "Alice@a.test"]
)
def test_data_from_somebody_else_is_refused(target: Target, alice: Application, originator: str) -> None:
    """P-24: 537 for everything that is not attached here on this session."""
    with target.row(f"P-24 {originator}"):
        assert refused(alice, text_payload(originator, "bob@a.test", "forged")) == "537"


@pytest.mark.parametrize("originator", ["apex=presence@a.test", "apex=report@a.test", "apex=access@c.test"])
def test_nobody_speaks_as_a_service(target: Target, alice: Application, originator: str) -> None:
    """P-24, ADDR-28: a forged notice of the presence service would be believed."""
    with target.row(f"P-24 {originator}"):
        assert refused(alice, text_payload(originator, "bob@a.test", "forged")) == "537"


@pytest.mark.parametrize("domain", ["a.test", "b.test", "c.test", "[127.0.0.1]"])
def test_nobody_binds_without_proof(target: Target, alice: Application, domain: str) -> None:
    """P-25: 537 for a domain we serve and for one no certificate proves (the table says 537 or 534)."""
    with target.row(f"P-25 {domain}"):
        assert refused(alice, f"<bind relay='{domain}' transID='7' />") in ("537", "534")


def test_a_reference_to_what_is_not_there_is_refused_and_never_fetched(target: Target, alice: Application) -> None:
    """P-27: 501 for a missing part, a foreign URL, a missing fragment; nobody connects anywhere."""
    with target.row("P-27"), socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        for content in ("cid:nowhere@a.test", url, "#Nothing", "", "file:///etc/passwd", "cid:"):
            assert refused(alice, data(PEOPLE, content)) == "501", content
            assert refused(alice, data(PEOPLE, content, "")) == "501", content
        good = text_payload("alice@a.test", "bob@a.test", "x")
        assert refused(alice, good.replace(b"content='cid:", b"content='cid:other")) == "501"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_option_that_must_be_understood_and_is_not_is_refused(
    target: Target, alice: Application, bob: Inbox
) -> None:
    """P-28: 504 if it is for this relay; ignored if it need not be understood."""
    with target.row("P-28", stores=True):
        for name in ("noSuchOption", "urn:example:none"):
            for hop in ("this", "final", "all"):
                unknown = option(name, 9, hop=hop, must=True)
                payload = text_payload("alice@a.test", "bob@a.test", "must", options=unknown)
                assert refused(alice, payload) == "504", (name, hop)
        harmless = option("noSuchOption", 9) + option("urn:example:none", 10, hop="all")
        alice.data("alice@a.test", "bob@a.test", part=text_part("P-28 may"), options=harmless)
        bob.expect("P-28 may")
        with connect(target) as other:
            other.sign_in("alice@a.test", PASSWORD)
            other.open()
            attaching = (
                f"<attach endpoint='alice/p28@a.test' transID='3'>{option('noSuchOption', 9, must=True)}</attach>"
            )
            assert refused(other, attaching) == "504"


@pytest.mark.parametrize(
    "content",
    [
        "<dataHopping noMoreThan='-1' />",
        "<dataHopping noMoreThan='256' />",
        "<dataHopping noMoreThan='x' />",
        "<other />",
        "",
        "text",
    ],
)
def test_a_hop_limit_that_is_none_is_refused(target: Target, alice: Application, content: str) -> None:
    """P-29: 501 for what the DTD of RFC 3342, section 6 does not have."""
    with target.row(f"P-29 {content}"):
        bad = option("dataHopping", 9, content, hop="all", must=True)
        assert refused(alice, text_payload("alice@a.test", "bob@a.test", "hop", options=bad)) == "501"


def test_hop_limits_of_zero_and_one_reach_who_is_here(target: Target, alice: Application, bob: Inbox) -> None:
    """P-29: 0 is no limit, 1 is used up only where a next relay would be needed (RFC 3342, section 4)."""
    with target.row("P-29", stores=True):
        for most in (0, 1, 255):
            alice.data(
                "alice@a.test", "bob@a.test", part=text_part(f"P-29 {most}"), options=hopping(9, noMoreThan=most)
            )
            bob.expect(f"P-29 {most}")


@pytest.mark.parametrize(
    "content",
    [
        "<dataTiming noLaterThan='-1' />",
        "<dataTiming noLaterThan='2147483648' />",
        "<dataTiming reportErrors='yes' />",
        "<dataTiming noLaterThan='1' /><dataTiming noLaterThan='1' />",
    ],
)
def test_a_timing_that_is_none_is_refused(target: Target, alice: Application, content: str) -> None:
    """P-29's kin, RFC 3342, section 6."""
    with target.row(f"timing {content}"):
        bad = option("dataTiming", 9, content, hop="all", must=True)
        assert refused(alice, text_payload("alice@a.test", "bob@a.test", "late", options=bad)) == "501"


NOT_WELL_FORMED = [
    "<?xml version='1.0'?><ok />",
    "<data",
    "<data></ok>",
    "<a b='1' b='2' />",
    "<a>&unknown;</a>",
    "<x:a />",
    "",
    "hello",
    "<a></a><b />",
    "<a>\x01</a>",
]


@pytest.mark.parametrize("text", NOT_WELL_FORMED)
def test_xml_that_is_not_well_formed_is_refused(target: Target, alice: Application, text: str) -> None:
    """P-30: 500."""
    with target.row("P-30 not well formed"):
        assert refused(alice, text) == "500"


NOT_VALID = [
    "<nothing />",
    "<ok />",
    "<data content='#Content' />",
    data("<recipient identity='bob@a.test' /><originator identity='alice@a.test' />"),
    data("<originator identity='alice@a.test' />"),
    data("<originator /><recipient identity='bob@a.test' />"),
    data("<originator identity='alice@a.test' /><recipient />"),
    data(PEOPLE + "<option transID='1' />"),
    data(PEOPLE + "<option internal='x' external='urn:x' transID='1' />"),
    data(PEOPLE + "<option internal='x' targetHop='some' transID='1' />"),
    data(PEOPLE + "<option internal='x' mustUnderstand='maybe' transID='1' />"),
    data(PEOPLE + "<unknown />"),
    "<attach endpoint='alice/q@a.test' />",
    "<attach endpoint='alice/q@a.test' transID='0' />",
    "<attach endpoint='alice/q@a.test' transID='2147483648' />",
    "<attach endpoint='alice/q@a.test' transID='x' />",
    "<attach transID='4' />",
    "<terminate transID='-1' />",
    "<terminate transID='2' code='99' />",
    "<bind transID='4' />",
]


@pytest.mark.parametrize("text", NOT_VALID)
def test_xml_that_is_not_valid_is_refused(target: Target, alice: Application, text: str) -> None:
    """P-30: 501."""
    with target.row("P-30 not valid"):
        assert refused(alice, text) == "501"


FORBIDDEN = [
    f"<!DOCTYPE data [{LAUGHS}]><data>&l9;</data>",
    "<!DOCTYPE x><ok />",
    "<!DOCTYPE x SYSTEM 'file:///etc/passwd'><ok />",
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_a_document_type_ends_the_session(target: Target, text: str) -> None:
    """P-30: C°, before anything is expanded (RFC 3080, section 6.4 allows neither); whole, in octets and cut."""
    payload = BEEP_XML + text.encode()
    with target.row("P-30 DOCTYPE"):
        for how in range(3):
            with raw(target, "attached") as peer:
                frame = peer.place().frame(payload=payload)
                play([peer], [[[frame], octet_by_octet(frame), pieces(frame, len(frame) // 2)][how]])
                assert b"END" not in peer.until_closed()


MULTIPARTS = [
    (b'boundary="', b'boundary="x', "no such delimiter"),
    (b"--\r\n", b"\r\n", "no closing delimiter"),
    (b'start="<', b'start="<x', "the start is not there"),
    (b"multipart/related", b"multipart/mixed", "another multipart"),
    (b"Content-Type: application/beep+xml", b"Content-Type: text/plain", "the control part is no XML"),
]


@pytest.mark.parametrize(("old", "new", "what"), MULTIPARTS, ids=[row[2] for row in MULTIPARTS])
def test_a_multipart_that_is_none_is_refused(
    target: Target, alice: Application, old: bytes, new: bytes, what: str
) -> None:
    """P-27's kin: 500, 501 or 504, nothing vague, nothing stored."""
    with target.row(f"multipart {what}"):
        good = text_payload("alice@a.test", "bob@a.test", "?")
        assert old in good
        assert refused(alice, good.replace(old, new)) in ("500", "501", "504")


def test_more_recipients_than_the_limit_are_refused(target: Target, alice: Application) -> None:
    """A data element for 1,000 people is one message to each of them: refused as a whole, nothing stored."""
    with target.row("recipients"):
        many = "".join(f"<recipient identity='r{k}@a.test' />" for k in range(1000))
        assert refused(alice, data("<originator identity='alice@a.test' />" + many)) in ("550", "554", "501")


def test_no_report_is_made_for_a_report(target: Target, alice: Application) -> None:
    """P-31: a statusRequest beside a statusResponse, and data to the report service, make nobody say anything."""
    report = "<statusResponse transID='8'><destination identity='bob@a.test'><reply code='250' /></destination></statusResponse>"
    asked = option("statusRequest", 86, must=True)
    with target.row("P-31", stores=True):
        for recipient in ("apex=report@a.test", "alice@a.test"):
            with_report = data(
                f"<originator identity='alice@a.test' /><recipient identity='{recipient}' />{asked}",
                inner=f"<data-content Name='Content'>{report}</data-content>",
            )
            with contextlib.suppress(Refused):  # refusing is as good as taking
                alice.operate(with_report)
        lives(alice)
        heard: list[Data] = []
        with pytest.raises(TimeoutError):
            while True:
                heard.append(alice.receive(timeout=1.0))
        assert not [one for one in heard if one.originator.startswith("apex=report")]


def test_a_deadline_too_short_and_one_long_past(target: Target, alice: Application, bob: Inbox) -> None:
    """A data that may be late by 2**31 milliseconds is as good as any; one millisecond is refused or reported, never wrong."""
    with target.row("deadlines", stores=True):
        alice.data("alice@a.test", "bob@a.test", part=text_part("in time"), options=timing(4, noLaterThan=2147483647))
        bob.expect("in time")


def test_an_answer_that_is_no_answer_counts_as_a_refusal(target: Target) -> None:
    """RFC 3080, section 2.2.2.1: a poorly formed reply on a channel closes it; the data was not taken, and others are served."""
    with target.row("bad reply", stores=True, log_lines=2):
        for reply in (b"\r\n", BEEP_XML + b"<data", BEEP_XML + b"<greeting />", BEEP_XML + b"<!DOCTYPE x><ok />"):
            with raw(target, "attached") as peer, raw(target, "attached") as other:
                other.application.data(
                    other.application.endpoint, peer.application.endpoint, part=text_part("take this")
                )
                request = peer.application.session.next_request()
                peer.application.session.reply(request, reply)
                _ends_or_closes(peer)


def _ends_or_closes(peer: Raw) -> None:
    """The channel is closed, or the session is over."""
    session, number = peer.application.session, peer.application.channel
    with pytest.raises((Broken, TimeoutError)):
        session.pump(lambda: number not in session.channels, 5.0)
        raise Broken("the channel is closed")
