"""D-02 … D-18 (reliability.md section 2.2): other servers, and who pretends to be one, on a running server.

D-03, a wrong dialback key, needs the domain's own server: tests/paths/test_dialback.py. D-06: tests/bindings/xmpp/test_server_stream.py.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import RawStream
from tests.interop.authority import Authority, srv_name, xmpp_addr

Pair = tuple[Path, Path]
AUTH = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>%s</auth>"
DB = b"xmlns:db='jabber:server:dialback'"


def header(sender: str, to: str = "a.test", xmlns: str = "jabber:server") -> bytes:
    """The opening of a stream."""
    from_ = f" from='{sender}'" if sender else ""
    text = f"<?xml version='1.0'?><stream:stream{from_} to='{to}' xmlns='{xmlns}' version='1.0'"
    return (text + " xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>").encode()


class Authorities:
    """The one that the target believes, and one that nobody believes."""

    def __init__(self, folder: Path) -> None:
        self.good = Authority(folder / "good")
        self.bad = Authority(folder / "bad", "Nobody's authority")


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("authorities"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Iterator[Target]:
    """A server that believes the good authority."""

    def believe(data: Path) -> None:
        config = data.parent / "comity.toml"
        text = config.read_text(encoding="utf-8") + f'[tls]\ntrust = "{authorities.good.file}"\n'
        config.write_text(
            text + '[[route]]\ndomain = "b.test"\nvia = "xmpp"\nnext_hop = "tcp://127.0.0.1:9"\n', "utf-8"
        )

    target = Target(tmp_path_factory.mktemp("target"), before=believe)
    yield target
    target.check_canary()
    target.close()


class RawServer(RawStream):
    """Another server up to TLS: what it shows and says from there is the row's."""

    def __init__(self, target: Target, certificate: Pair | None = None, *, sender: str = "b.test") -> None:
        super().__init__(target, "server")
        self.send(header(sender))
        assert b"required" in self.until(rb"</stream:features>")
        self.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        self.until(rb"<proceed[^>]*>")
        context = ssl.create_default_context(cafile=str(self._ca))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        self.sock = context.wrap_socket(self.sock, server_hostname="a.test")

    def open(self, sender: str = "b.test", to: str = "a.test") -> bytes:
        """A stream under TLS; its features."""
        self.send(header(sender, to))
        return self.until(rb"<stream:features/>|</stream:features>")

    def prove(self, sender: str = "b.test") -> None:
        """EXTERNAL, up to a stream that carries stanzas."""
        assert b"EXTERNAL" in self.open(sender)
        self.send(AUTH % base64.b64encode(sender.encode()))
        self.until(rb"<success[^>]*>")
        assert b"urn:xmpp:sm:3" in self.open(sender)


def message(sender: str, to: str, text: str = "hi") -> bytes:
    return f"<message from='{sender}' to='{to}' id='1'><body>{text}</body></message>".encode()


@pytest.fixture(scope="module")
def b_test(authorities: Authorities) -> Pair:
    return authorities.good.issue("b.test")


def test_a_proved_server_hands_in_messages_of_its_domain_alone(target: Target, bob: Inbox, b_test: Pair) -> None:
    """D-08, D-09: the rest of the row: what is its own arrives; what it may not say ends the stream."""
    with target.row("D-08", log_lines=0, stores=True), RawServer(target, b_test) as peer:
        peer.prove()
        peer.send(message("eve@b.test/x", "bob@a.test", "from b"))
        bob.expect("from b")
    for sender, to, condition in (
        ("eve@c.test", "bob@a.test", b"invalid-from"),
        ("alice@a.test", "bob@a.test", b"invalid-from"),
        ("eve@sub.b.test", "bob@a.test", b"invalid-from"),
        ("", "bob@a.test", b"improper-addressing"),
        ("eve@b.test", "", b"improper-addressing"),
        ("eve@b.test", "carol@c.test", b"host-unknown"),
        ("eve@b.test", "carol@b.test", b"host-unknown"),
    ):
        with target.row(f"{sender} to {to}", log_lines=0), RawServer(target, b_test) as peer:
            peer.prove()
            peer.send(message(sender, to, "spoofed").replace(b" from=''", b"").replace(b" to=''", b""))
            assert condition in peer.until_closed()
    assert "spoofed" not in bob.texts


def test_dialback_that_nobody_allowed_is_refused(target: Target, b_test: Pair) -> None:
    """D-02, D-04, D-05, D-07."""
    with target.row("D-02", log_lines=2), RawServer(target, b_test) as peer:
        assert b"xmpp:features:dialback" not in peer.open("c.test"), "not listed, and not in the certificate"
        peer.send(b"<db:result %s from='c.test' to='a.test'>key</db:result>" % DB)
        answer = peer.until(rb"</db:result>")
        assert b"type='error'" in answer
        assert b"policy-violation" in answer
        peer.send(message("eve@c.test", "bob@a.test"))
        assert b"not-authorized" in peer.until_closed()
    with target.row("D-05, D-07", log_lines=0), RawServer(target, b_test) as peer:
        peer.open()
        peer.send(b"<db:verify %s from='b.test' to='a.test' id='never'>%s</db:verify>" % (DB, b"0" * 64))
        assert b"type='invalid'" in peer.until(rb"<db:verify[^>]*>")
        peer.send(b"<db:result %s from='b.test' to='nowhere.test'>key</db:result>" % DB)
        assert b"item-not-found" in peer.until(rb"</db:result>")
    with target.row("D-04", log_lines=0), RawServer(target, b_test) as peer:
        peer.open()
        peer.send(b"<db:result %s from='a.test' to='a.test'>key</db:result>" % DB)
        assert b"invalid-from" in peer.until_closed()
    with target.row("D-04", log_lines=0), RawServer(target, b_test) as peer:
        peer.send(header("a.test"))
        assert b"invalid-from" in peer.until_closed()


def test_without_a_certificate_nothing_is_proved(target: Target) -> None:
    """D-10: EXTERNAL is not offered, and refused."""
    with target.row("D-10", log_lines=1), RawServer(target) as peer:
        assert b"EXTERNAL" not in peer.open()
        peer.send(AUTH % b"=")
        assert b"<not-authorized/>" in peer.until(rb"</failure>")
        peer.send(message("eve@b.test", "bob@a.test"))
        assert b"not-authorized" in peer.until_closed()


def test_a_certificate_that_does_not_verify_is_refused(target: Target, authorities: Authorities) -> None:
    """D-14: expired, not yet valid, of an unknown authority, not for clients: TLS fails, before XMPP says a word."""
    good = authorities.good
    pairs = {
        "expired": good.issue("b.test", days=(-10, -1)),
        "not yet": good.issue("b.test", days=(1, 10)),
        "unknown authority": authorities.bad.issue("b.test"),
        "for signing code": good.issue("b.test", uses=[ExtendedKeyUsageOID.CODE_SIGNING]),
    }
    for name, pair in pairs.items():
        with target.row(f"D-14 {name}", log_lines=1), RawServer(target, pair) as peer:
            peer.send(header("b.test"))
            assert peer.until_closed() == b"", name  # TLS 1.3: a client hears of it when it reads


def test_a_certificate_that_ends_ends_the_stream(target: Target, authorities: Authorities) -> None:
    """D-15: what it proved is proved no longer; the stream is reset, so that it may be opened on the new one."""
    pair = authorities.good.issue("b.test", days=(-1, 4 / 86_400))
    with target.row("D-15", log_lines=0), RawServer(target, pair) as peer:
        peer.prove()
        assert b"<reset" in peer.until_closed()


def test_only_the_alternative_names_for_servers_count(target: Target, authorities: Authorities) -> None:
    """D-16: no user's address, no name of another service, no common name; SRVName and XmppAddr of the domain do."""
    issue = authorities.good.issue
    for name, pair, is_good in (
        ("user", issue(xmpp_addr("eve@b.test"), "other.test"), False),
        ("device", issue(xmpp_addr("b.test/x"), "other.test"), False),
        ("client", issue(srv_name("_xmpp-client.b.test"), "other.test"), False),
        ("common name", issue(common_name="b.test"), False),
        ("too wide", issue("*.test"), False),
        ("address", issue(xmpp_addr("b.test")), True),
        ("service", issue(srv_name("_xmpp-server.b.test")), True),
    ):
        with target.row(f"D-16 {name}", log_lines=1), RawServer(target, pair) as peer:
            assert (b"EXTERNAL" in peer.open()) is is_good, name
            peer.send(AUTH % base64.b64encode(b"b.test"))
            assert (b"success" if is_good else b"not-authorized") in peer.until(rb"<success[^>]*>|</failure>")


def test_who_may_be_one_domain_may_not_sign_in_as_another(target: Target, b_test: Pair) -> None:
    """RFC 6120 section 6.3.8: the identity asked for is that of the stream; afterwards it does not change."""
    with target.row("authzid", log_lines=1), RawServer(target, b_test) as peer:
        peer.open()
        peer.send(AUTH % base64.b64encode(b"c.test"))
        assert b"invalid-authzid" in peer.until(rb"</failure>")
    with target.row("another header", log_lines=0), RawServer(target, b_test) as peer:
        peer.open()
        peer.send(AUTH % b"=")
        peer.until(rb"<success[^>]*>")
        peer.send(header("c.test"))
        assert b"invalid-from" in peer.until_closed()


@pytest.mark.parametrize(
    ("octets", "condition"),
    [
        (header("b.test", xmlns="jabber:client"), b"invalid-namespace"),
        (header("b.test", to="c.test"), b"host-unknown"),
        (header("b.test").replace(b" version='1.0' xmlns:stream", b" xmlns:stream"), b"unsupported-version"),
        (header("b.test") + message("eve@b.test", "bob@a.test"), b"not-authorized"),
        (header("b.test") + b"<x xmlns='urn:x'/>", b"unsupported-stanza-type"),
        (header("b.test") + b"<x y='" + b"z" * 12_000, b"policy-violation"),
    ],
    ids=["D-17", "host", "version", "stanza", "element", "size"],
)
def test_a_stream_that_begins_wrongly_is_told_so(target: Target, octets: bytes, condition: bytes) -> None:
    """D-17 and what X-rows ask of clients: the same whole and octet by octet."""
    for size in (len(octets), 1 if len(octets) < 1000 else 512):
        with target.row(condition.decode(), log_lines=0), RawStream(target, "server") as peer:
            peer.send_pieces(octets, size)
            assert condition in peer.until_closed()


def test_sasl_and_dialback_come_after_tls(target: Target) -> None:
    """X-36, X-37 between servers, and octets sent in the same breath as <starttls/>."""
    with target.row("clear", log_lines=1), RawStream(target, "server") as peer:
        peer.send(header("b.test"))
        peer.until(rb"</stream:features>")
        peer.send(AUTH % b"=")
        assert b"encryption-required" in peer.until(rb"</failure>")
        peer.send(b"<db:result %s from='b.test' to='a.test'>key</db:result>" % DB)
        assert b"policy-violation" in peer.until(rb"</db:result>")
        peer.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + header("b.test"))
        assert b"<failure" in peer.until_closed()


def test_fifty_domains_and_no_more_go_by_one_stream(target: Target, authorities: Authorities) -> None:
    """D-18: each further one the certificate names is taken at its word, up to the limit."""
    names = [f"d{n}.test" for n in range(60)]
    with target.row("D-18", log_lines=0), RawServer(target, authorities.good.issue("b.test", *names)) as peer:
        peer.prove()
        for name in names[:49]:
            peer.send(b"<db:result %s from='%s' to='a.test'/>" % (DB, name.encode()))
            assert b"type='valid'" in peer.until(rb"<db:result[^>]*>")
        peer.send(b"<db:result %s from='d59.test' to='a.test'/>" % DB)
        assert b"policy-violation" in peer.until_closed()
