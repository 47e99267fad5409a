"""The independent BEEP and APEX peer against itself: it must stand before it judges us (issue 6, "Shown by").

It imports nothing of Comity, so what both ends of our own conversation misread alike shows when this one is at one end.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import apex_peer, apex_peer_beep
from tests.interop.apex_peer import APEX, Application, Relay, hopping, option
from tests.interop.apex_peer_beep import BEEP_XML, Broken, Message, Refused, Session

ALLOWED = {"tests.interop.apex_peer_beep"}


@pytest.fixture
def relay() -> Iterator[Relay]:
    """The peer's own relay, on a port of its own."""
    relay = Relay("b.test")
    yield relay
    relay.close()
    assert relay.broken == []


@pytest.mark.parametrize("module", [apex_peer, apex_peer_beep])
def test_the_peer_imports_nothing_of_ours(module: object) -> None:
    """Read from its syntax tree: the standard library and its own other half, nothing else, and nothing by name."""
    path = Path(str(module.__file__))  # type: ignore[attr-defined]  # a module has one
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] in ("comity", "tests") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            top = (node.module or "").split(".")[0]
            assert top != "comity"
            assert top != "tests" or node.module in ALLOWED
        elif isinstance(node, ast.Name):
            assert node.id not in ("__import__", "importlib", "eval", "exec")


def test_data_goes_from_application_to_application_through_the_relay(relay: Relay) -> None:
    """Every octet, also those that look like a frame or a delimiter, in more octets than a window holds."""
    content = bytes(range(256)) * 600 + b"\r\nEND\r\nMSG 1 1 . 0 0\r\n--boundary--\r\n"
    with Application("127.0.0.1", relay.port) as sender, Application("127.0.0.1", relay.port) as taker:
        taker.attach("barney@b.test")
        sender.attach("fred@b.test")
        part = (b"Content-Type: image/gif\r\nContent-Transfer-Encoding: binary\r\n", content)
        sender.data("fred@b.test", "barney@b.test", part=part, options=option("statusRequest", 86, must=True))
        got = taker.receive()
        assert (got.originator, got.recipients) == ("fred@b.test", ["barney@b.test"])
        assert got.body == content
        assert got.header("Content-Type") == "image/gif"
        assert got.option("statusRequest") is not None
        sender.release()
        taker.release()


def test_in_line_content_and_options_arrive(relay: Relay) -> None:
    """RFC 3340, section 4.1: a data-content, named by a fragment."""
    with Application("127.0.0.1", relay.port) as sender:
        sender.bind("a.test")
        sender.data(
            "fred@a.test", ["x@b.test", "y@b.test"], inline="<reply code='250' />", options=hopping(3, noMoreThan=7)
        )
        got = relay.arrived.get(timeout=10)
        assert got.recipients == ["x@b.test", "y@b.test"]
        assert got.inline is not None
        assert got.inline[0].get("code") == "250"
        hops = got.option("dataHopping")
        assert hops is not None
        assert hops[0].get("noMoreThan") == "7"


def test_an_association_is_named_once_and_released_once(relay: Relay) -> None:
    """555 for a transaction-identifier in use, 550 for one that is not (RFC 3340, section 4.4)."""
    with Application("127.0.0.1", relay.port) as caller:
        number = caller.attach("fred@b.test")
        with pytest.raises(Refused, match="555"):
            caller.operate(f"<attach endpoint='wilma@b.test' transID='{number}' />")
        with pytest.raises(Refused, match="550"):
            caller.terminate(13)
        caller.terminate(number)
        caller.session.close_channel(caller.channel)


def test_unknown_profiles_and_unbound_certificates_are_refused(relay: Relay) -> None:
    """550 for a profile nobody announced; 535 for EXTERNAL without a certificate."""
    with Application("127.0.0.1", relay.port) as caller:
        assert APEX in caller.profiles
        with pytest.raises(Refused, match="550"):
            caller.session.start([("http://iana.org/beep/FOO", "")])
        with pytest.raises(Refused, match="535"):
            caller.sign_in("", "", "EXTERNAL")


@pytest.mark.parametrize(
    "octets",
    [
        b"XXX 0 0 . 0 5\r\nhelloEND\r\n",
        b"MSG 7 0 . 0 0\r\nEND\r\n",
        b"RPY 0 9 . 52 0\r\nEND\r\n",
        b"MSG 0 1 . 1 0\r\nEND\r\n",
        b"MSG 0 1 . 0 0\r\nENDX\r\n",
        b"NUL 0 0 * 0 0\r\nEND\r\n",
    ],
)
def test_a_frame_that_is_poorly_formed_ends_the_session(octets: bytes) -> None:
    """RFC 3080, section 2.2.1.1: the peer judges as strictly as it is meant to judge us."""
    relay = Relay("b.test")
    try:
        with Application("127.0.0.1", relay.port) as caller:
            caller.session.sock.sendall(octets)
            with pytest.raises(Broken, match=r"closed|read"):
                caller.session.pump(lambda: False)
        assert relay.broken
    finally:
        relay.close()


def test_a_message_is_answered_in_its_turn_only(relay: Relay) -> None:
    """The peer itself keeps the order of answers (section 2.6.1): a test that breaks it is told."""
    with Application("127.0.0.1", relay.port) as caller:
        caller.attach("fred@b.test")
        request = Message("MSG", caller.channel, 5, BEEP_XML)
        with pytest.raises(AssertionError, match="out of order"):
            caller.ok(request)
        assert isinstance(caller.session, Session)
