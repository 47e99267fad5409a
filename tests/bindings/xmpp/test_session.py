"""Both sessions against each other, and the server's against every bad input of reliability.md section 2.1."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity import sasl
from comity.bindings.xmpp import events
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.session import State
from comity.bindings.xmpp.wire import SASL, STANZAS, STREAM_ERRORS, Element
from comity.errors import LocalProtocolError
from tests.bindings.xmpp.pair import END_POINT, HEADER, PASSWORD, Pair, ServerSide, read_stream
from tests.test_xml import BEFORE_HEADER, CLOSING, LIMITS

TLS_NS = "urn:ietf:params:xml:ns:xmpp-tls"


def condition_of(octets: bytes) -> str:
    """The stream error written, "" if there is none."""
    if b"<stream:error>" not in octets:
        return ""
    assert octets.rstrip().endswith(b"</stream:stream>")
    errors = [e for e in read_stream(octets) if e.local == "error" and e.namespace.endswith("streams")]
    assert len(errors) == 1, "one reply at most"
    return next(child.local for child in errors[0].elements() if child.namespace == STREAM_ERRORS)


def message(text: str = "hi") -> Element:
    body = Element("{jabber:client}body", {}, [text])
    return Element("{jabber:client}message", {"to": "bob@b.test", "id": text}, [body])


class TestSignIn:
    """XMPP-2; RFC 6120 sections 5 to 7."""

    @pytest.mark.parametrize("size", [1 << 20, 1, 7])
    def test_starttls_then_scram_plus_then_bind(self, size: int) -> None:
        pair = Pair(size=size).run()
        assert pair.of(events.SignInSucceeded) == [events.SignInSucceeded(Jid("alice", "a.test"), "SCRAM-SHA-512-PLUS")]
        assert pair.of(events.ResourceBound) == [
            events.ResourceBound(Jid("alice", "a.test", "phone"), is_sm_offered=True)
        ]
        assert len(pair.of(events.SmEnabled)) == 1
        assert pair.server.session.state is State.BOUND

    @pytest.mark.parametrize("hash_name", ["sha-512", "sha-256", "sha-1"])
    @pytest.mark.parametrize("end_point", [END_POINT, b""])
    def test_every_scram_with_and_without_binding(self, hash_name: str, end_point: bytes) -> None:
        pair = Pair(tls=True, hashes=(hash_name,))
        pair.server.end_point = pair.client_end_point = end_point
        pair.run()
        expected = f"SCRAM-SHA-{hash_name[4:]}" + ("-PLUS" if end_point else "")
        assert [e.mechanism for e in pair.of(events.SignInSucceeded) if isinstance(e, events.SignInSucceeded)] == [
            expected
        ]

    def test_account_with_one_hash_fails_others_like_a_wrong_password(self) -> None:
        assert Pair(tls=True, jid="old@a.test", hashes=("sha-1",)).run().of(events.SignInSucceeded)
        failed = Pair(tls=True, jid="old@a.test").run().of(events.SignInFailed)
        assert failed == [events.SignInFailed(Jid("old", "a.test"), "not-authorized", "")]

    def test_plaintext_only_where_allowed(self) -> None:
        pair = Pair(allow_plaintext=True, has_tls=False).run()
        assert pair.of(events.ResourceBound)
        assert pair.of(events.SignInSucceeded) == [events.SignInSucceeded(Jid("alice", "a.test"), "SCRAM-SHA-512")]
        refusing = Pair(has_tls=False).run()
        assert [e.condition for e in refusing.of(events.SignInFailed) if isinstance(e, events.SignInFailed)] == [
            "encryption-required"
        ]

    def test_plain_is_offered_last_and_only_under_tls(self) -> None:
        clear = read_stream(ServerSide().feed(HEADER))[-1]
        assert [child.local for child in clear.elements()] == ["starttls"]
        assert clear.find(f"{{{TLS_NS}}}starttls/") is None
        side = ServerSide(tls=True)
        features = read_stream(side.feed(HEADER))[-1]
        mechanisms = features.find(f"{{{SASL}}}mechanisms")
        assert mechanisms is not None
        assert [m.text for m in mechanisms.elements()] == [
            "SCRAM-SHA-512-PLUS",
            "SCRAM-SHA-256-PLUS",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-512",
            "SCRAM-SHA-256",
            "SCRAM-SHA-1",
            "PLAIN",
        ]
        binding = features.find("{urn:xmpp:sasl-cb:0}sasl-channel-binding")
        assert binding is not None
        assert [c.get("type") for c in binding.elements()] == ["tls-server-end-point"]

    def test_plain_works(self) -> None:
        side = ServerSide(tls=True)
        side.sign_in()
        assert side.of(events.ResourceBound) == [events.ResourceBound(Jid("alice", "a.test", "r"))]

    def test_plain_without_initial_response_is_asked_for_it(self) -> None:
        side = ServerSide(tls=True)
        out = side.feed(HEADER, b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>")
        assert b">=</challenge>" in out
        out = side.feed(b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AGFsaWNlAHBlbmNpbCDimIM=</response>")
        assert b"<success" in out

    def test_wrong_password_and_unknown_user_look_alike(self) -> None:
        """X-33: the shape of the answers; the times are not measured here."""
        wrong = Pair(tls=True, password="wrong").run()
        unknown = Pair(tls=True, jid="nobody@a.test/phone").run()
        for pair in (wrong, unknown):
            assert [
                (e.condition, e.text) for e in pair.of(events.SignInFailed) if isinstance(e, events.SignInFailed)
            ] == [("not-authorized", "")]
        first = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>%b</auth>"
        salts = []
        for name in (b"nobody", b"nobody", b"alice", b"a@b", b"x y"):
            side = ServerSide(tls=True)
            out = side.feed(HEADER, first % base64.b64encode(b"n,,n=" + name + b",r=abc"))
            salts.append(base64.b64decode(read_stream(out)[-1].text).split(b",")[1:])
        assert salts[0] == salts[1]
        assert salts[0] != salts[2]
        assert {s[1] for s in salts} == {b"i=4096"}

    def test_channel_binding_mismatch_is_refused(self) -> None:
        """X-42: somebody in the middle shows another certificate."""
        pair = Pair(tls=True, client_end_point=b"another").run()
        assert [e.condition for e in pair.of(events.SignInFailed) if isinstance(e, events.SignInFailed)] == [
            "not-authorized"
        ]

    @pytest.mark.parametrize("flag", [b"p=tls-exporter", b"p=tls-unique", b"y", b"n"])
    def test_other_channel_bindings_are_refused(self, flag: bytes) -> None:
        """X-42, and T13: "y" although we offer -PLUS means that the offer was removed on the way."""
        side = ServerSide(tls=True)
        first = base64.b64encode(flag + b",,n=alice,r=abc")
        name = b"SCRAM-SHA-256" if flag == b"y" else b"SCRAM-SHA-256-PLUS"
        out = side.feed(HEADER, b"<auth xmlns='%b' mechanism='%b'>%b</auth>" % (SASL.encode(), name, first))
        assert b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/>" in out

    def test_foreign_authzid_is_refused_and_own_accepted(self) -> None:
        """X-30."""
        auth = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%b</auth>"
        for authzid, expected in [
            (b"bob@b.test", b"<invalid-authzid/>"),
            (b"alice@b.test", b"<invalid-authzid/>"),
            (b"@@", b"<invalid-authzid/>"),
            (b"alice@a.test", b"<success"),
        ]:
            side = ServerSide(tls=True)
            out = side.feed(HEADER, auth % base64.b64encode(authzid + b"\0alice\0" + PASSWORD.encode()))
            assert expected in out
            assert (b"<success" in out) == (expected == b"<success")

    def test_sixth_failure_closes(self) -> None:
        """X-34."""
        side = ServerSide(tls=True)
        side.feed(HEADER)
        bad = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHg=</auth>"
        for _ in range(4):
            out = side.feed(bad)
            assert b"<not-authorized/>" in out
            assert condition_of(out) == ""
        assert condition_of(HEADER + side.feed(bad)) == "policy-violation"
        assert side.feed(bad) == b""

    @pytest.mark.parametrize(
        ("content", "mechanism", "expected"),
        [
            ("*", "PLAIN", "incorrect-encoding"),
            ("=", "PLAIN", "malformed-request"),
            ("AAAA", "SCRAM-SHA-256", "malformed-request"),
            ("é", "PLAIN", "incorrect-encoding"),
            ("", "DIGEST-MD5", "invalid-mechanism"),
            ("", "EXTERNAL", "invalid-mechanism"),
            ("", "", "invalid-mechanism"),
        ],
    )
    def test_bad_sasl_data(self, content: str, mechanism: str, expected: str) -> None:
        """X-44, X-45."""
        side = ServerSide(tls=True)
        out = side.feed(HEADER, f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{content}</auth>".encode())
        assert f"<{expected}/>".encode() in out
        assert condition_of(out) == ""

    def test_huge_sasl_data_and_mechanism_names_close(self) -> None:
        """X-44, X-45."""
        big = f"<auth xmlns='{SASL}' mechanism='PLAIN'>{'A' * 65536}</auth>".encode()
        assert condition_of(ServerSide(tls=True).feed(HEADER, big)) == "policy-violation"
        long = f"<auth xmlns='{SASL}' mechanism='{'A' * 1024}'>AAAA</auth>".encode()
        assert condition_of(ServerSide(tls=True).feed(HEADER, long)) == "policy-violation"

    def test_scram_server_that_does_not_know_the_password_is_not_believed(self) -> None:
        client = sasl.ScramClient("SCRAM-SHA-1", "u", "p", "n", end_point=None, server_offers_plus=False)
        client.first()
        client.final(b"r=nx,s=QSXCR+Q6sek8bf92,i=4096")
        with pytest.raises(sasl.SaslFailure):
            client.verify(b"v=" + base64.b64encode(b"x" * 20))
        for challenge in (b"r=x,s=QQ==,i=4096", b"r=nx,s=QQ==,i=1", b"r=nx,s=QQ==,i=-1", b"r=nx,s=QQ==", b"\xff"):
            with pytest.raises(sasl.SaslFailure):
                sasl.ScramClient("SCRAM-SHA-1", "u", "p", "n", end_point=None, server_offers_plus=False).final(
                    challenge
                )

    def test_scram_example_of_rfc_5802(self) -> None:
        """RFC 5802 section 5."""
        client = sasl.ScramClient(
            "SCRAM-SHA-1", "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL", end_point=None, server_offers_plus=False
        )
        assert client.first() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
        first = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"
        final = b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        assert client.final(first) == final
        client.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")
        server = sasl.ScramServer("SCRAM-SHA-1", None, offers_plus=False)
        server.first(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL")
        secret = sasl.derive_secret("pencil", "sha-1", base64.b64decode("QSXCR+Q6sek8bf92"), 4096)
        assert server.challenge(secret, "3rfcNHYJY1ZVvWVs7j") == first
        assert server.final(final, is_known=True) == b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="


class TestStarttls:
    """RFC 6120 section 5; T12."""

    def test_octets_behind_starttls_stop_everything(self) -> None:
        """X-36."""
        starttls = f"<starttls xmlns='{TLS_NS}'/>".encode()
        for rest in (b"<message/>", b"<mess", b"x", b"<?xml version='1.0'?>"):
            side = ServerSide()
            out = side.feed(HEADER, starttls + rest)
            assert b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>" in out
            assert b"proceed" not in out
            assert not side.of(events.TlsWanted)
            assert side.session.is_ended

    def test_starttls_at_every_split(self) -> None:
        data = f"<starttls xmlns='{TLS_NS}'/>".encode()
        for cut in range(1, len(data)):
            side = ServerSide()
            assert b"<proceed" in side.feed(HEADER, data[:cut], data[cut:])

    def test_second_starttls_is_refused(self) -> None:
        assert b"<failure" in ServerSide(tls=True).feed(HEADER, f"<starttls xmlns='{TLS_NS}'/>".encode())

    def test_what_must_not_come_before_tls(self) -> None:
        """X-37, X-38."""
        auth = f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGFsaWNlAHg=</auth>".encode()
        assert b"<encryption-required/>" in ServerSide().feed(HEADER, auth)
        bind = b"<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
        assert condition_of(ServerSide().feed(HEADER, bind)) == "policy-violation"

    def test_clear_octets_after_proceed_are_not_a_stream(self) -> None:
        side = ServerSide()
        side.feed(HEADER)
        side.session.receive_data(f"<starttls xmlns='{TLS_NS}'/>".encode(), 0.0)
        side.answer()
        side.session.data_to_send(0.0)
        side.session.receive_data(HEADER, 0.0)
        out = b"".join(side.session.data_to_send(0.0))
        assert condition_of(out) == "policy-violation"


def fresh() -> ServerSide:
    return ServerSide()


def after_tls() -> ServerSide:
    side = ServerSide()
    side.feed(HEADER, f"<starttls xmlns='{TLS_NS}'/>".encode())
    return side


def after_authentication() -> ServerSide:
    side = ServerSide(tls=True)
    auth = f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGFsaWNlAHBlbmNpbCDimIM=</auth>".encode()
    assert b"<success" in side.feed(HEADER, auth)
    return side


STAGES = [fresh, after_tls, after_authentication]


@pytest.mark.parametrize("stage", STAGES)
class TestXmlAtEachStage:
    """X-01 … X-29: fresh, after TLS, after authentication."""

    @pytest.mark.parametrize(("row", "data", "hint"), CLOSING, ids=[row[0] for row in CLOSING])
    def test_in_the_stream(self, stage: object, row: str, data: bytes, hint: str) -> None:
        assert callable(stage)
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            side = stage()
            out = side.feed(HEADER, *pieces)
            out += side.feed(b" " * 1100 + b"</x>")
            assert condition_of(out) == hint
            assert side.session.is_ended

    @pytest.mark.parametrize(("row", "data", "hint"), BEFORE_HEADER, ids=[row[0] for row in BEFORE_HEADER])
    def test_before_the_header(self, stage: object, row: str, data: bytes, hint: str) -> None:
        assert callable(stage)
        side = stage()
        assert condition_of(side.feed(data, b" " * 1100)) == hint

    @pytest.mark.parametrize(("row", "over", "under"), LIMITS, ids=[row[0] for row in LIMITS])
    def test_limits(self, stage: object, row: str, over: bytes, under: bytes) -> None:
        assert callable(stage)
        side = stage()
        out = side.feed(HEADER, over)
        assert condition_of(out) == "policy-violation"
        if row in ("X-23", "text"):
            assert b"<stanza-too-big xmlns='urn:xmpp:errors'/>" in out or b"before signing in" in out

    def test_header_checks(self, stage: object) -> None:
        """RFC 6120 section 4.8, 4.9.3."""
        assert callable(stage)
        for old, new, expected in [
            (b"to='a.test'", b"to='c.test'", "host-unknown"),
            (b"to='a.test'", b"to='@@'", "host-unknown"),
            (b"to='a.test'", b"", "host-unknown"),
            (b" version='1.0'>", b">", "unsupported-version"),
            (b" version='1.0'>", b" version='0.9'>", "unsupported-version"),
            (b"jabber:client", b"jabber:server", "invalid-namespace"),
            (b"etherx.jabber.org/streams", b"etherx.jabber.org/x", "invalid-namespace"),
            (b"<stream:stream", b"<stream:flow", "bad-format"),
        ]:
            got = condition_of(stage().feed(HEADER.replace(old, new)))
            if stage is after_authentication and expected == "host-unknown":
                expected = "not-authorized"
            assert got == expected, new


class TestAfterSignIn:
    def test_another_host_or_sender_in_the_new_header_closes(self) -> None:
        """X-31, X-32."""
        assert condition_of(after_authentication().feed(HEADER.replace(b"a.test", b"b.test"))) == "not-authorized"
        with_from = HEADER.replace(b"to=", b"from='bob@a.test' to=")
        assert condition_of(after_authentication().feed(with_from)) == "invalid-from"
        own = HEADER.replace(b"to=", b"from='alice@a.test/x' to=")
        assert condition_of(after_authentication().feed(own)) == ""

    def test_second_bind_and_second_auth(self) -> None:
        """X-32."""
        side = ServerSide(tls=True)
        side.sign_in()
        bind = b"<iq type='set' id='2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
        assert b"<not-allowed" in side.feed(bind)
        auth = f"<auth xmlns='{SASL}' mechanism='PLAIN'>AAAA</auth>".encode()
        assert condition_of(side.feed(auth)) == "unsupported-stanza-type"

    def test_stanzas_before_their_time(self) -> None:
        """X-49, X-50."""
        for stanza in (b"<message to='b@b.test'/>", b"<iq type='get' id='1'><x xmlns='u'/></iq>"):
            assert condition_of(ServerSide(tls=True).feed(HEADER, stanza)) == "not-authorized"
        assert condition_of(after_authentication().feed(HEADER, b"<message to='b@b.test'/>")) == "not-authorized"
        out = after_authentication().feed(HEADER, b"<iq type='get' id='1'><x xmlns='u'/></iq>")
        assert b"<not-allowed" in out
        assert condition_of(out) == ""

    def test_bad_resource_is_refused_and_missing_one_is_made(self) -> None:
        bind = b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>%b</bind></iq>"
        side = after_authentication()
        out = side.feed(HEADER, bind % ("<resource>%s</resource>" % ("a" * 1024)).encode())
        assert b"<bad-request" in out
        assert b"<jid>alice@a.test/" in side.feed(bind % b"")

    def test_old_clients_may_ask_for_a_session(self) -> None:
        """RFC 3921 section 3."""
        side = ServerSide(tls=True)
        side.sign_in()
        out = side.feed(b"<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>")
        assert b"type='result' id='s'" in out
        assert not side.of(events.StanzaReceived)

    @pytest.mark.parametrize("sender", ["bob@b.test", "alice@a.test/other", "a.test", "@@", "im:alice@a.test"])
    def test_forged_from_closes(self, sender: str) -> None:
        """X-46, X-47, XMPP-3."""
        side = ServerSide(tls=True)
        side.sign_in()
        out = side.feed(b"<message id='before'/>" + f"<message from='{sender}'/>".encode())
        assert condition_of(out) == "invalid-from"
        assert len(side.of(events.StanzaReceived)) == 1

    def test_from_is_stamped(self) -> None:
        side = ServerSide(tls=True)
        side.sign_in()
        side.feed(b"<message/><message from='alice@a.test'/><message from='ALICE@a.test/r'/>")
        received = [e.stanza.get("from") for e in side.events if isinstance(e, events.StanzaReceived)]
        assert received == ["alice@a.test/r"] * 3

    @pytest.mark.parametrize("to", ["@@@///", "", "@b.test", "x" * 1024 + "@b.test", "a\u00a0b@b.test", "im:a@b.test"])
    def test_bad_address_is_jid_malformed(self, to: str) -> None:
        """X-51, XMPP-17; the text does not echo more than 128 octets."""
        side = ServerSide(tls=True)
        side.sign_in()
        out = side.feed(f"<message id='7' to='{to}'/>".encode())
        (error,) = read_stream(out)
        assert error.get("id") == "7"
        child = error.find("{jabber:client}error")
        assert child is not None
        assert child.get("type") == "modify"
        assert child.find(f"{{{STANZAS}}}jid-malformed") is not None
        assert len(out) < 600
        assert not side.of(events.StanzaReceived)

    @pytest.mark.parametrize(
        "iq",
        [
            "<iq type='get'><q xmlns='u'/></iq>",
            "<iq id='1' type='zzz'><q xmlns='u'/></iq>",
            "<iq id='1'><q xmlns='u'/></iq>",
            "<iq id='1' type='get'/>",
            "<iq id='1' type='set'><q xmlns='u'/><q xmlns='u'/></iq>",
        ],
    )
    def test_bad_iq(self, iq: str) -> None:
        """X-52."""
        side = ServerSide(tls=True)
        side.sign_in()
        out = side.feed(iq.encode())
        assert b"<bad-request xmlns" in out
        assert condition_of(out) == ""

    @pytest.mark.parametrize("element", ["<foo/>", "<foo xmlns='urn:evil'/>", "<message xmlns=''/>"])
    def test_unknown_top_level_element_closes(self, element: str) -> None:
        """X-54, X-55."""
        side = ServerSide(tls=True)
        side.sign_in()
        assert condition_of(side.feed(element.encode())) == "unsupported-stanza-type"

    def test_error_is_never_answered_with_an_error(self) -> None:
        """XMPP-6."""
        side = ServerSide(tls=True)
        side.sign_in()
        assert side.feed(b"<message type='error' to='@@' id='1'/><iq type='error' to='@@' id='2'/>") == b""

    def test_goodbye_and_what_follows(self) -> None:
        """X-75."""
        side = ServerSide(tls=True)
        side.sign_in()
        out = side.feed(b"<message id='1'/></stream:stream><message id='2'/>")
        assert out.endswith(b"</stream:stream>")
        assert len(side.of(events.StanzaReceived)) == 1
        ended = side.of(events.StreamEnded)
        assert ended == [events.StreamEnded("", "", is_local=False, is_orderly=True)]
        assert side.feed(b"<message id='3'/>") == b""

    def test_half_close_is_followed(self) -> None:
        side = ServerSide(tls=True)
        side.sign_in()
        side.session.receive_eof(1.0)
        assert side.session.data_to_send(1.0) == [b""]
        assert isinstance(side.session.next_event(), events.StreamEnded)

    def test_keepalives_are_welcome_but_not_a_flood(self) -> None:
        """X-76."""
        side = ServerSide(tls=True)
        side.sign_in()
        for second in range(1, 30):
            for tenth in range(10):
                side.now = second + tenth / 10
                assert side.feed(b" ") == b""
        out = b""
        for _ in range(100):
            side.now += 0.001
            out += side.feed(b" ")
        assert condition_of(HEADER + out) == "policy-violation"

    def test_byte_by_byte_is_the_same(self) -> None:
        whole = ServerSide(tls=True)
        whole.sign_in()
        piecewise = ServerSide(tls=True)
        piecewise.sign_in()
        data = "<message to='b@b.test' id='1'><body>ü &lt; x</body></message><presence/>".encode()
        whole.feed(data)
        for cut in range(len(data)):
            piecewise.events.clear()
            piecewise.feed(data[:cut], data[cut:])
            assert [e.stanza for e in piecewise.events if isinstance(e, events.StanzaReceived)] == [
                e.stanza for e in whole.events if isinstance(e, events.StanzaReceived)
            ]


class TestBeforeSignIn:
    def test_is_limited_in_time(self) -> None:
        side = ServerSide(tls=True)
        side.feed(HEADER)
        assert side.session.next_timer() == 30.0
        side.session.handle_timer(30.0)
        assert condition_of(HEADER + b"".join(side.session.data_to_send(30.0))) == "connection-timeout"

    def test_is_limited_in_octets(self) -> None:
        side = ServerSide(tls=True)
        out = side.feed(HEADER)
        for _ in range(64 * 1024 // 1000 + 1):
            out += side.feed(f"<auth xmlns='{SASL}' mechanism='PLAIN' x='{'x' * 900}'>*</auth>".encode())
        assert condition_of(out) == "policy-violation"

    def test_work_per_sign_in_is_small(self) -> None:
        began = time.process_time()
        side = ServerSide(tls=True)
        side.feed(HEADER)
        assert time.process_time() - began < 0.05


class TestStreamManagement:
    """XEP-0198; reliability.md sections 5.2 and 5.3."""

    def enabled(self) -> ServerSide:
        side = ServerSide(tls=True)
        side.sign_in()
        assert b"<enabled xmlns='urn:xmpp:sm:3' id=" in side.feed(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        return side

    def test_h_counts_only_what_is_finished_without_a_gap(self) -> None:
        side = ServerSide(tls=True)
        side.handles_at_once = False
        side.sign_in()
        side.feed(b"<message id='early'/>", b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        out = side.feed(b"<message id='1'/><message id='2'/><message id='3'/><r xmlns='urn:xmpp:sm:3'/>")
        assert b"<a " not in out
        early, one, two, three = (e.index for e in side.events if isinstance(e, events.StanzaReceived))
        for index in (three, two):
            side.session.stanza_handled(index)
        side.session.stanza_handled(early)
        assert side.session.data_to_send(0.0) == []
        side.session.stanza_handled(one)
        assert side.session.data_to_send(0.0) == [b"<a xmlns='urn:xmpp:sm:3' h='3'/>"]

    def test_messages_ask_for_one_acknowledgement_per_write(self) -> None:
        side = self.enabled()
        for n in range(3):
            side.session.send_stanza(message(str(n)), key=n)
        (octets,) = side.session.data_to_send(0.0)
        assert octets.count(b"<r xmlns") == 1
        assert octets.endswith(b"<r xmlns='urn:xmpp:sm:3'/>")
        side.feed(b"<a xmlns='urn:xmpp:sm:3' h='2'/>")
        assert side.of(events.StanzasAcknowledged) == [events.StanzasAcknowledged((0, 1))]

    @pytest.mark.parametrize(
        ("h", "expected"), [("", "bad-format"), ("h='-1'", "bad-format"), ("h='4294967296'", "bad-format")]
    )
    def test_bad_h_closes(self, h: str, expected: str) -> None:
        """X-68."""
        assert condition_of(HEADER + self.enabled().feed(f"<a xmlns='urn:xmpp:sm:3' {h}/>".encode())) == expected

    def test_h_beyond_what_was_sent_closes(self) -> None:
        out = self.enabled().feed(b"<a xmlns='urn:xmpp:sm:3' h='1'/>")
        assert condition_of(HEADER + out) == "undefined-condition"
        assert b"<handled-count-too-high" in out

    def test_enabling_twice_or_too_early_fails(self) -> None:
        assert b"<unexpected-request" in self.enabled().feed(b"<enable xmlns='urn:xmpp:sm:3'/>")
        assert b"<unexpected-request" in after_authentication().feed(HEADER, b"<enable xmlns='urn:xmpp:sm:3'/>")
        side = ServerSide(tls=True)
        side.sign_in()
        assert condition_of(HEADER + side.feed(b"<r xmlns='urn:xmpp:sm:3'/>")) == "unsupported-stanza-type"

    def test_lost_connection_goes_on_with_everything_unconfirmed(self) -> None:
        first = Pair(tls=True).run()
        server, client = first.server.session, first.client
        server.send_stanza(message("one"), key="one")
        server.send_stanza(message("two"), key="two")
        client.send_stanza(message("up"), key="up")
        first.run()
        assert first.server.of(events.StanzasAcknowledged) == [events.StanzasAcknowledged(("one", "two"))]
        server.send_stanza(message("three"), key="three")
        server.data_to_send(0.0)  # lost on the way
        client.send_stanza(message("lost"), key="lost")
        client.data_to_send(0.0)  # lost on the way
        states = {server.sm_state.id: server.sm_state}
        second = Pair(tls=True, resume=client.sm_state, states=states).run()
        assert second.of(events.Resumed) == [events.Resumed(Jid("alice", "a.test", "phone"))]
        assert [e.stanza.get("id") for e in second.events if isinstance(e, events.StanzaReceived)] == ["three"]
        assert [e.stanza.get("id") for e in second.server.events if isinstance(e, events.StanzaReceived)] == ["lost"]
        assert second.server.of(events.StanzasAcknowledged) == [events.StanzasAcknowledged(("three",))]
        assert second.of(events.StanzasAcknowledged) == [events.StanzasAcknowledged(("lost",))]

    def test_unknown_or_foreign_resumption_fails_and_bind_still_works(self) -> None:
        """X-69, X-70."""
        first = Pair(tls=True).run()
        state = first.client.sm_state
        second = Pair(tls=True, resume=state).run()
        assert second.of(events.ResourceBound)
        assert not second.of(events.Resumed)
        stolen = Pair(tls=True).run().server.session.sm_state
        stolen.jid = Jid("mallory", "a.test", "x")
        third = Pair(tls=True, resume=state, states={state.id: stolen}).run()
        assert third.of(events.ResourceBound)
        assert not third.of(events.Resumed)

    def test_only_one_of_two_resumptions_wins(self) -> None:
        """X-73."""
        first = Pair(tls=True).run()
        states = {first.server.session.sm_state.id: first.server.session.sm_state}
        resume = f"<resume xmlns='urn:xmpp:sm:3' previd='{first.client.sm_state.id}' h='0'/>".encode()
        outcomes = []
        for _ in range(2):
            side = after_authentication()
            side.states = states
            outcomes.append(b"<resumed" in side.feed(HEADER, resume))
        assert outcomes == [True, False]

    def test_full_queue_ends_the_stream(self) -> None:
        side = self.enabled()
        for n in range(501):
            side.session.send_stanza(message(str(n)), key=n)
        assert condition_of(HEADER + b"".join(side.session.data_to_send(0.0))) == "resource-constraint"

    def test_silence_after_a_request_ends_the_stream(self) -> None:
        side = self.enabled()
        side.session.send_stanza(message(), key=1)
        side.session.data_to_send(5.0)
        timer = side.session.next_timer()
        assert timer == 50.0
        side.session.handle_timer(50.0)
        assert side.session.is_ended

    def test_a_client_that_speaks_but_does_not_acknowledge_is_alive(self) -> None:
        side = self.enabled()
        side.session.send_stanza(message(), key=1)
        side.session.data_to_send(5.0)
        side.now = 40.0
        side.feed(b" ")
        side.session.handle_timer(50.0)
        assert not side.session.is_ended
        assert side.session.next_timer() == 100.0

    @pytest.mark.parametrize("has_sm", [True, False])
    def test_silent_client_is_asked_and_gone_within_two_minutes(self, has_sm: bool) -> None:
        """F-25: by a request for acknowledgement, or XEP-0199."""
        side = self.enabled() if has_sm else ServerSide(tls=True)
        if not has_sm:
            side.sign_in()
        assert side.session.next_timer() == 60.0
        side.session.handle_timer(60.0)
        (question,) = side.session.data_to_send(60.0)
        assert (b"<r xmlns" in question) is has_sm
        assert (b"<ping xmlns" in question) is not has_sm
        assert side.session.next_timer() == 105.0
        side.session.handle_timer(105.0)
        assert condition_of(HEADER + b"".join(side.session.data_to_send(105.0))) == "connection-timeout"


class TestLife:
    """Without stream management a message counts as taken when a question after it is answered."""

    def asked(self, *keys: int) -> tuple[ServerSide, str]:
        side = ServerSide(tls=True)
        side.sign_in()
        for key in keys:
            side.session.send_stanza(message(str(key)), key=key)
        (octets,) = side.session.data_to_send(0.0)
        *_, question = read_stream(octets)
        assert question.find("{urn:xmpp:ping}ping") is not None
        assert octets.count(b"<ping") == 1
        return side, question.get("id")

    @pytest.mark.parametrize("kind", ["result", "error"])
    def test_the_answer_proves_what_stood_before_the_question(self, kind: str) -> None:
        side, id = self.asked(1, 2)
        side.session.send_stanza(message("3"), key=3)
        assert b"<ping" not in b"".join(side.session.data_to_send(0.0)), "one question at a time"
        out = side.feed(f"<iq type='{kind}' id='{id}'/>".encode())
        assert side.of(events.StanzasAcknowledged) == [events.StanzasAcknowledged((1, 2))]
        assert b"<ping" in out
        assert not side.of(events.StanzaReceived), "the answer is ours alone"

    def test_a_request_or_a_foreign_answer_proves_nothing(self) -> None:
        side, id = self.asked(1)
        side.feed(
            f"<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>".encode(), b"<iq type='result' id='x'/>"
        )
        assert not side.of(events.StanzasAcknowledged)

    def test_a_program_that_lives_and_never_answers_is_believed(self) -> None:
        side, _ = self.asked(1)
        side.now = 30.0
        side.feed(b"<presence/>")
        side.session.handle_timer(45.0)
        side.answer()
        side.session.send_stanza(message("2"), key=2)
        side.answer()
        assert [e.keys for e in side.events if isinstance(e, events.StanzasAcknowledged)] == [(1,), (2,)]
        assert b"<ping" not in b"".join(side.session.data_to_send(46.0))


class TestActivity:
    """XEP-0352: what says nothing later waits while nobody looks; messages never do."""

    def quiet(self) -> ServerSide:
        side = ServerSide(tls=True)
        assert b"<csi xmlns='urn:xmpp:csi:0'/>" in side.sign_in()
        assert side.feed(b"<inactive xmlns='urn:xmpp:csi:0'/>") == b""
        for slot, name in [("a", "old"), ("b", "b"), ("a", "new")]:
            side.session.send_passing(message(name), slot)
        assert side.session.data_to_send(0.0) == []
        return side

    def ids(self, side: ServerSide) -> list[str]:
        return [stanza.get("id") for stanza in read_stream(b"".join(side.session.data_to_send(0.0)))]

    def test_only_the_last_of_each_kind_is_kept_until_somebody_looks(self) -> None:
        side = self.quiet()
        out = side.feed(b"<active xmlns='urn:xmpp:csi:0'/>")
        assert [stanza.get("id") for stanza in read_stream(out)] == ["b", "new"]
        side.session.send_passing(message("now"), "a")
        assert self.ids(side) == ["now"]

    def test_a_message_goes_at_once_and_overtakes_nothing(self) -> None:
        side = self.quiet()
        side.session.send_stanza(message("important"))
        assert self.ids(side) == ["b", "new", "important"]

    def test_what_is_written_already_waits_like_the_rest(self) -> None:
        side = self.quiet()
        for octets, slot in [(b"<presence id='1'/>", "p"), (b"<presence id='2'/>", "p"), (b"<presence id='3'/>", "a")]:
            side.session.send_raw(octets, slot)
        assert self.ids(side) == []
        out = side.feed(b"<active xmlns='urn:xmpp:csi:0'/>")
        assert [stanza.get("id") for stanza in read_stream(out)] == ["b", "2", "3"]
        side.session.send_raw(b"<presence id='4'/>", "p")
        side.session.send_stanza(message("5"))
        assert self.ids(side) == ["4", "5"]

    def test_presence_waits_for_who_does_not_acknowledge_and_the_last_of_each_sender_comes(self) -> None:
        """What merely sleeps is not lost for the comings and goings of others (N-rows of reliability.md section 2.9)."""
        side = ServerSide(tls=True, sm_queue=40)
        side.sign_in()
        side.feed(b"<enable xmlns='urn:xmpp:sm:3'/>")
        for n in range(1000):
            side.session.send_raw(b"<presence from='%d' id='%d'/>" % (n % 7, n), f"presence {n % 7}")
        assert len(self.ids(side)) < 40
        assert not side.session.is_ended
        side.feed(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % len(side.session.sm_state.outgoing))
        side.session.send_raw(b"<presence from='9' id='1000'/>", "presence 9")
        waiting = [read_stream(octets)[0] for octets, _ in side.session.sm_state.outgoing.unconfirmed()]
        assert [stanza.get("id") for stanza in waiting] == [str(n) for n in range(993, 1001)]

    def test_what_waits_is_bounded(self) -> None:
        side = self.quiet()
        for n in range(100):
            side.session.send_passing(message(str(n)), str(n))
        assert len(side.session.take_held()) <= 64


def test_sending_before_bind_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        ServerSide().session.send_stanza(message())


@settings(max_examples=60)
@given(
    st.lists(
        st.binary(max_size=80) | st.sampled_from([HEADER, b"<message/>", b"<a xmlns='urn:xmpp:sm:3' h='0'/>"]),
        max_size=6,
    ),
    st.booleans(),
)
def test_arbitrary_octets_never_raise(pieces: list[bytes], signed_in: bool) -> None:
    side = ServerSide(tls=True)
    if signed_in:
        side.sign_in()
    side.feed(*pieces)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=80) | st.sampled_from([HEADER, b"<stream:features/>"]), max_size=6))
def test_arbitrary_octets_never_raise_at_the_client(pieces: list[bytes]) -> None:
    pair = Pair(tls=True)
    for piece in pieces:
        pair.client.receive_data(piece, 0.0)
        while pair.client.next_event() is not None:
            pass
        pair.client.data_to_send(0.0)
