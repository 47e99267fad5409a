"""Stanza to operation and back: T1, T3, T5, T8; GW-1, GW-2; XMPP-16, XMPP-22 to XMPP-25; X-60 to X-64."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.e2e import E2E, E2E_ELEMENT, OCTETS, OCTETS_ELEMENT, unwrap_entity, unwrap_octets, wrap_entity
from comity.bindings.xmpp.egress import UNREAD
from comity.bindings.xmpp.extensions import PROTECTION
from comity.bindings.xmpp.mapping import Outgoing, Refusal, operation_to_stanza, stanza_to_operation
from comity.bindings.xmpp.reasons import CONDITIONS, REASONS
from comity.bindings.xmpp.wire import STANZAS
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.native import wrap
from comity.cpim.operations import (
    Context,
    HistoryEntry,
    MessageOperation,
    MimeObject,
    Reason,
    Report,
    Response,
    failure,
)
from comity.xml import XML_LANG, Element, parse_document, serialize

WHEN = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
SIGNED = MimeObject(
    b'Content-Type: multipart/signed; boundary="b"; micalg=sha-256; protocol="application/pkcs7-signature"\r\n',
    b"--b\r\nContent-Type: message/cpim\r\n\r\nFrom: <im:alice@a.test>\r\nTo: <im:bob@b.test>\r\n\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nsigned text\r\n--b\r\n"
    b"Content-Type: application/pkcs7-signature\r\n\r\nMIIB\r\n--b--\r\n",
)
ENCRYPTED = MimeObject.of('application/pkcs7-mime; smime-type="authEnveloped-data"', b"secret octets")
BINARY = MimeObject.of("image/png", b"\x89PNG\r\n\x1a\n\x00")


def stanza(children: str, attributes: str = "to='bob@b.test' id='7'") -> Element:
    raw = f"<message xmlns='jabber:client' from='alice@a.test/phone' {attributes}>{children}</message>"
    return parse_document(raw.encode())


def ingress(element: Element) -> MessageOperation:
    made = stanza_to_operation(element, when=WHEN, trans_id="t1", message_id="m1")
    assert isinstance(made, MessageOperation), made
    return made


def egress(
    operation: MessageOperation, features: frozenset[str] | None = None, delayed: bool = False
) -> Outgoing | Response:
    return operation_to_stanza(
        operation, delivery_id="spine", domain="b.test", accepted=WHEN, is_delayed=delayed, features=features
    )


def sent(operation: MessageOperation, features: frozenset[str] | None = None) -> Element:
    made = egress(operation, features)
    assert isinstance(made, Outgoing), made
    return made.stanza


def operation(obj: MimeObject, context: Context | None = None) -> MessageOperation:
    return MessageOperation(ALICE, BOB, "t1", obj, context=context or Context())


def text_object(text: bytes = b"hello") -> MimeObject:
    return wrap(ALICE, BOB, text, "text/plain; charset=utf-8", when=WHEN, message_id="m")


class TestIngress:
    def test_body_becomes_an_object_once(self) -> None:
        """GW-1, T5."""
        made = ingress(
            stanza(
                "<subject xml:lang='cs'>Předmět</subject><body>ahoj\nsvěte</body><thread>t-1</thread>",
                "to='Bob@b.test/pad' id='7' type='chat' xml:lang='cs'",
            )
        )
        assert (made.source, made.destination, made.trans_id) == (ALICE, BOB, "t1")
        assert made.is_wrapped
        view = CpimMessage.parse(made.object.octets)
        assert view.from_ is not None
        assert view.from_.uri == "im:alice@a.test"
        assert view.message_id == "m1"
        assert view.subject("cs") == "Předmět"
        assert view.content_header("content-language") == "cs"
        assert view.content == "ahoj\r\nsvěte".encode()
        context = made.context
        assert (context.thread, context.kind, context.native_id) == ("t-1", "chat", "7")
        assert (context.source_resource, context.resource, context.native_protocol) == ("phone", "pad", "xmpp")
        assert not context.transient

    def test_unknown_type_is_normal_and_no_to_means_oneself(self) -> None:
        """XMPP-16; RFC 6120 section 10.3.1."""
        made = ingress(stanza("<body>x</body>", "type='nonsense'"))
        assert made.context.kind == "normal"
        assert made.destination == ALICE

    def test_object_is_taken_as_it_is(self) -> None:
        """XMPP-23: the wrapper goes, the entity stays, the body beside it is only for old clients."""
        element = wrap_entity(SIGNED.entity)
        assert element is not None
        made = ingress(stanza(serialize(element).decode() + "<body>copy</body>"))
        assert made.object == SIGNED
        assert not made.is_wrapped
        assert made.context.native == b""
        coded = ingress(stanza(f"<octets xmlns='{OCTETS}'>QTogYg0KDQr/AA==</octets>"))
        assert coded.object == MimeObject(b"A: b\r\n", b"\xff\x00")

    def test_several_bodies_survive_between_xmpp_programs(self) -> None:
        source = stanza("<body xml:lang='de'>hallo</body><body>hi</body>", "to='bob@b.test' xml:lang='en' id='7'")
        made = ingress(source)
        view = CpimMessage.parse(made.object.octets)
        assert view.content_type == 'multipart/alternative; boundary="=m1"'
        text = "Content-Type: text/plain; charset=utf-8\r\nContent-Language: {}\r\n\r\n{}\r\n"
        parts = ["", text.format("de", "hallo"), text.format("en", "hi")]
        assert view.content.decode() == "--=m1\r\n".join(parts) + "--=m1--\r\n"
        bodies = {b.language: b.text for b in sent(made).find_all(mapping.BODY)}
        assert bodies == {"en": "hi", "de": "hallo"}

    @pytest.mark.parametrize(
        "forged",
        [
            "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></received>",
            "<sent xmlns='urn:xmpp:carbons:2'/>",
            "<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='x'/></forwarded>",
            "<result xmlns='urn:xmpp:mam:2'/>",
            "<delay xmlns='urn:xmpp:delay' from='a.test' stamp='2002-09-10T23:08:25Z'/>",
            "<stanza-id xmlns='urn:xmpp:sid:0' by='a.test' id='x'/>",
            "<origin-id xmlns='urn:xmpp:sid:0' by='a.test' id='x'/>",
            "<history xmlns='urn:comity:history:0'><hop node='a.test'/></history>",
        ],
    )
    def test_what_only_servers_may_say_is_taken_away(self, forged: str) -> None:
        """X-60, X-61, X-63, X-64."""
        made = ingress(stanza("<body>x</body><keep xmlns='urn:k'/>" + forged))
        out = sent(made)
        assert [c.name for c in mapping.native_children(made.context)] == ["{urn:k}keep"]
        own = {f"{{{mapping.STANZA_ID}}}stanza-id"}
        assert {c.name for c in out.elements()} == {mapping.BODY, "{urn:k}keep"} | own
        alone = stanza_to_operation(stanza(forged), when=WHEN, trans_id="t", message_id="m")
        assert isinstance(alone, Refusal)

    @pytest.mark.parametrize(
        ("children", "transient"),
        [
            ("<active xmlns='http://jabber.org/protocol/chatstates'/>", True),
            ("<composing xmlns='http://jabber.org/protocol/chatstates'/><no-store xmlns='urn:xmpp:hints'/>", True),
            ("<active xmlns='http://jabber.org/protocol/chatstates'/><store xmlns='urn:xmpp:hints'/>", False),
            ("<received xmlns='urn:xmpp:receipts' id='9'/>", False),
            ("<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>x</payload></encrypted>", False),
        ],
    )
    def test_message_without_text_keeps_its_extensions(self, children: str, transient: bool) -> None:
        source = stanza(children, "to='bob@b.test' type='chat'")
        made = ingress(source)
        assert made.object.media_type == ("message/cpim" if transient else "application/xmpp+xml")
        assert made.context.transient is transient
        out = sent(made)
        assert list(out.elements())[: len(list(source.elements()))] == list(source.elements())
        assert out.get("type") == "chat"

    def test_headline_is_transient(self) -> None:
        assert ingress(stanza("<body>x</body>", "to='bob@b.test' type='headline'")).context.transient

    @pytest.mark.parametrize(
        ("children", "attributes", "condition"),
        [
            ("<body>x</body>", "to='room@b.test' type='groupchat'", "feature-not-implemented"),
            ("<body>x</body>", "to='b.test'", "service-unavailable"),
            ("", "to='bob@b.test'", "bad-request"),
            ("<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'/>", "to='bob@b.test'", "bad-request"),
            ("<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'>A: b</e2e>", "to='bob@b.test'", "bad-request"),
            ("<octets xmlns='urn:comity:octets:0'>*</octets>", "to='bob@b.test'", "bad-request"),
            (2 * "<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'>A: b\n\nx</e2e>", "to='bob@b.test'", "bad-request"),
            (
                "<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'>A: b\n\nx</e2e>"
                "<octets xmlns='urn:comity:octets:0'>QTogYg0KDQp4</octets>",
                "to='bob@b.test'",
                "bad-request",
            ),
        ],
    )
    def test_what_cannot_be_carried_is_refused(self, children: str, attributes: str, condition: str) -> None:
        """GW-18 and the rest."""
        made = stanza_to_operation(stanza(children, attributes), when=WHEN, trans_id="t", message_id="m")
        assert isinstance(made, Refusal)
        assert made.condition == condition


class TestEgress:
    def test_text_for_a_stock_program(self) -> None:
        """T5, GW-2."""
        obj = wrap(
            ALICE,
            BOB,
            "ahoj\r\nsvěte <&]]>".encode(),
            "text/plain; charset=utf-8",
            when=WHEN,
            message_id="m",
            subjects=[("", "plain"), ("cs", "věc")],
            language="cs",
        )
        made = egress(operation(obj, Context(thread="t", source_resource="phone", native_id="call-1")), frozenset())
        assert isinstance(made, Outgoing)
        out = made.stanza
        assert made.form == "text"
        assert out.attributes == {"from": "alice@a.test/phone", "to": "bob@b.test", "id": "spine"}
        assert [(b.text, b.language) for b in out.find_all(mapping.BODY)] == [("ahoj\nsvěte <&]]>", "cs")]
        assert {(s.language, s.text) for s in out.find_all(mapping.SUBJECT)} == {("", "plain"), ("cs", "věc")}
        thread = out.find(mapping.THREAD)
        assert thread is not None
        assert thread.text == "t"
        assert out.find(E2E_ELEMENT) is None
        assert (
            parse_document(serialize(out, wire.CLIENT).replace(b"<message", b"<message xmlns='jabber:client'", 1))
            == out
        )

    def test_xmpp_to_xmpp_keeps_everything_that_matters(self) -> None:
        source = stanza(
            "<subject>s</subject><body>hi</body><thread>t</thread><active xmlns='http://jabber.org/protocol/chatstates'/>"
            "<request xmlns='urn:xmpp:receipts'/><replace xmlns='urn:xmpp:message-correct:0' id='6'/>"
            "<origin-id xmlns='urn:xmpp:sid:0' id='7'/>",
            "to='bob@b.test/pad' id='7' type='chat'",
        )
        out = sent(ingress(source))
        assert out.attributes == {**source.attributes}
        for child in source.elements():
            assert child in list(out.elements())

    def test_capable_device_gets_the_object_whole(self) -> None:
        """GW-2, XMPP-19."""
        obj = text_object()
        made = egress(operation(obj), frozenset({E2E}))
        assert isinstance(made, Outgoing)
        assert made.form == "object"
        carrier = made.stanza.find(E2E_ELEMENT)
        assert carrier is not None
        assert unwrap_entity(carrier) == obj.entity
        assert made.stanza.find(mapping.BODY) is not None

    def test_what_e2e_would_change_goes_as_octets_or_not_at_all(self) -> None:
        """XMPP-19, SEED-21."""
        for obj in (BINARY, MimeObject.of("text/csv", b"lone\nLF")):
            carrier = sent(operation(obj), frozenset({E2E, OCTETS})).find(OCTETS_ELEMENT)
            assert carrier is not None
            assert unwrap_octets(carrier) == obj.entity
            for features in (frozenset({E2E}), frozenset[str](), None):
                made = egress(operation(obj), features)
                assert isinstance(made, Response)
                assert made.reason is Reason.CONTENT

    def test_binary_text_is_shown_but_never_mangled(self) -> None:
        """I18N-5: no mojibake."""
        latin = wrap(ALICE, BOB, "š".encode("iso-8859-2"), "text/plain; charset=iso-8859-2", when=WHEN, message_id="m")
        assert isinstance(egress(operation(latin), frozenset()), Response)
        carrier = sent(operation(latin), frozenset({E2E, OCTETS})).find(OCTETS_ELEMENT)
        assert carrier is not None
        assert unwrap_octets(carrier) == latin.entity

    @pytest.mark.parametrize("features", [None, frozenset({E2E}), frozenset({E2E, OCTETS})])
    def test_signed_object_goes_whole_beside_a_marked_copy(self, features: frozenset[str] | None) -> None:
        """XMPP-18, XMPP-25."""
        made = egress(operation(SIGNED), features)
        assert isinstance(made, Outgoing)
        assert made.form == ("object" if features else "text-of-signed")
        carrier = made.stanza.find(E2E_ELEMENT)
        assert carrier is not None
        assert unwrap_entity(carrier) == SIGNED.entity
        body = made.stanza.find(mapping.BODY)
        assert body is not None
        assert body.text == f"signed text\n\n{mapping.UNCHECKED}"

    def test_signed_object_goes_readable_to_a_device_without_e2e(self) -> None:
        """XMPP-18: the signature still goes along, the body says that it was not checked, the form claims no more."""
        made = egress(operation(SIGNED), frozenset())
        assert isinstance(made, Outgoing)
        assert made.form == "text-of-signed"
        carrier = made.stanza.find(E2E_ELEMENT)
        assert carrier is not None
        assert unwrap_entity(carrier) == SIGNED.entity
        body = made.stanza.find(mapping.BODY)
        assert body is not None
        assert body.text == f"signed text\n\n{mapping.UNCHECKED}"

    @pytest.mark.parametrize("features", [None, frozenset[str](), frozenset({E2E})])
    def test_signed_object_that_e2e_would_change_goes_as_its_readable_text_alone(
        self, features: frozenset[str] | None
    ) -> None:
        broken = MimeObject.of(SIGNED.content_type, SIGNED.octets + b"\n")  # a lone LF: e2e cannot be proved
        made = egress(operation(broken), features)
        assert isinstance(made, Outgoing)
        assert made.form == "text-of-signed"
        assert made.stanza.find(E2E_ELEMENT) is None
        body = made.stanza.find(mapping.BODY)
        assert body is not None
        assert body.text == f"signed text\n\n{mapping.UNCHECKED}"

    def test_encrypted_object_that_cannot_go_whole_is_refused(self) -> None:
        """XMPP-25: nothing of it can be read without the key."""
        broken = MimeObject.of(ENCRYPTED.content_type, ENCRYPTED.octets + b"\n")
        for features in (None, frozenset[str](), frozenset({E2E})):
            made = egress(operation(broken), features)
            assert isinstance(made, Response)
            assert made.reason is Reason.CONTENT

    @pytest.mark.parametrize("features", [None, frozenset({E2E})])
    def test_no_clear_text_beside_an_encrypted_object(self, features: frozenset[str] | None) -> None:
        """XMPP-25; even if the sender's program put some beside it. Who may not know e2e is told what came."""
        context = Context(native_protocol="xmpp", native=b"<body>leak</body><x xmlns='u'/>")
        out = sent(operation(ENCRYPTED, context), features)
        bodies = [child.text for child in out.elements() if child.name == mapping.BODY]
        hints = [child.attributes for child in out.elements() if child.name == "{urn:xmpp:eme:0}encryption"]
        assert bodies == ([UNREAD] if features is None else [])
        assert hints == ([{"namespace": E2E, "name": "RFC 3923"}] if features is None else [])
        assert out.find(E2E_ELEMENT) is not None
        assert out.find("{u}x") is not None

    def test_the_statement_beside_an_encrypted_object_is_not_taken_for_the_message(self) -> None:
        """XMPP-25: a program that sends it on, as a gateway would, sends the object."""
        out = sent(operation(ENCRYPTED), None)
        out.attributes |= {"from": "alice@a.test/x", "to": "bob@b.test"}
        made = ingress(out)
        assert made.object == ENCRYPTED
        assert not made.context.native

    def test_delay_and_history_are_said(self) -> None:
        """XEP-0203, GW-8."""
        first = HistoryEntry("a.test", "sip", "xmpp", WHEN, in_tls=False, out_tls=True)
        entries = (first, HistoryEntry("b.test", "xmpp", "xmpp", WHEN, "n"))
        op = MessageOperation(ALICE, BOB, "t", text_object(), history=entries)
        made = egress(op, delayed=True)
        assert isinstance(made, Outgoing)
        delay = made.stanza.find("{urn:xmpp:delay}delay")
        assert delay is not None
        assert delay.attributes == {"from": "b.test", "stamp": "2026-05-01T12:00:00.123Z"}
        got = mapping.read_history(made.stanza)
        assert [(e.node, e.in_protocol, e.out_protocol, e.note) for e in got] == [
            ("a.test", "sip", "xmpp", ""),
            ("b.test", "xmpp", "xmpp", "n"),
        ]
        assert [(e.in_tls, e.out_tls) for e in got] == [(False, True), (None, None)]
        assert all(abs(e.when - WHEN) < timedelta(milliseconds=1) for e in got)

    def test_identifiers_are_constant_over_attempts(self) -> None:
        """Reliability.md section 5.3, egress row."""
        op = operation(text_object())
        assert sent(op) == sent(op)
        stanza_id = sent(op).find("{urn:xmpp:sid:0}stanza-id")
        assert stanza_id is not None
        assert stanza_id.attributes == {"by": "bob@b.test", "id": "spine"}

    def test_control_characters_never_reach_the_stream(self) -> None:
        """T27."""
        context = Context(
            thread="a\x00b", source_resource="p\x01", kind="chat", native_id="\x02", native_protocol="xmpp"
        )
        out = sent(operation(text_object(), context))
        serialize(out, wire.CLIENT)
        bad = wrap(ALICE, BOB, b"x\x0by", "text/plain; charset=utf-8", when=WHEN, message_id="m")
        assert isinstance(egress(operation(bad), frozenset()), Response)

    def test_native_parts_that_cannot_be_read_are_left_out(self) -> None:
        context = Context(native_protocol="xmpp", native=b"<broken")
        assert sent(operation(text_object(), context)).find(mapping.BODY) is not None

    @pytest.mark.parametrize(
        "octets",
        [
            b"<xmpp xmlns='jabber:client'><message><a xmlns='u'/></message><message/></xmpp>",
            b"<xmpp xmlns='jabber:client'><iq type='set'/></xmpp>",
            b"<message xmlns='jabber:client'/>",
            b"<broken",
        ],
    )
    def test_malformed_stanza_documents_are_refused(self, octets: bytes) -> None:
        """XMPP-24."""
        obj = MimeObject.of("application/xmpp+xml", octets)
        made = egress(operation(obj, Context(native_protocol="xmpp")))
        assert isinstance(made, Response)
        assert made.reason is Reason.CONTENT


class TestFailures:
    """T1, T3, T8."""

    @pytest.mark.parametrize("reason", list(Reason))
    def test_every_reason_has_a_condition_of_its_own_type(self, reason: Reason) -> None:
        reply = mapping.response_to_error(stanza("<body>x</body>"), failure("t", reason, "because"), is_local=False)
        assert reply is not None
        assert (reply.get("id"), reply.get("to"), reply.get("from")) == ("7", "alice@a.test/phone", "bob@b.test")
        error = reply.find(wire.ERROR)
        assert error is not None
        condition, kind, detail = CONDITIONS[reason.value]
        assert error.find(f"{{{STANZAS}}}{condition}") is not None
        assert error.get("type") == (kind or wire.CONDITION_TYPES[condition])
        assert wire.error_of(error)[1] == "because"
        namespace = PROTECTION if reason is Reason.PROTECTION else E2E
        assert (error.find(f"{{{namespace}}}{detail}") is not None) is bool(detail)

    @pytest.mark.parametrize(
        ("reason", "condition", "kind"),
        [
            (Reason.SYNTAX, "bad-request", "modify"),
            (Reason.NO_SUCH_USER, "item-not-found", "cancel"),
            (Reason.NO_ROUTE, "remote-server-not-found", "cancel"),
            (Reason.TIMEOUT, "remote-server-timeout", "wait"),
            (Reason.DENIED, "forbidden", "auth"),
            (Reason.AWAY, "recipient-unavailable", "wait"),
            (Reason.SIZE, "policy-violation", "modify"),
            (Reason.CONTENT, "not-acceptable", "modify"),
            (Reason.HOPS, "not-acceptable", "modify"),
            (Reason.LOOP, "not-acceptable", "modify"),
            (Reason.OVERLOAD, "resource-constraint", "wait"),
        ],
    )
    def test_table_t1(self, reason: Reason, condition: str, kind: str) -> None:
        found = CONDITIONS[reason.value]
        assert (found[0], found[1] or wire.CONDITION_TYPES[found[0]]) == (condition, kind)

    def test_unknown_local_user_looks_like_any_other(self) -> None:
        """XMPP-8, X-57."""
        reply = mapping.response_to_error(stanza("<body/>"), failure("t", Reason.NO_SUCH_USER), is_local=True)
        assert reply is not None
        error = reply.find(wire.ERROR)
        assert error is not None
        assert wire.error_of(error)[0] == "service-unavailable"

    def test_every_condition_has_a_reason_and_unknown_ones_too(self) -> None:
        assert set(REASONS) == set(wire.CONDITION_TYPES)
        for condition, value in REASONS.items():
            error = Element(wire.MESSAGE, {"type": "error"}, [wire.error_element(condition, "why")])
            response = mapping.error_to_response(error, "t")
            assert (response.reason, response.text) == (Reason(value), "why")
        odd = Element(wire.ERROR, {"type": "cancel"}, [Element(f"{{{STANZAS}}}new-condition")])
        assert mapping.error_to_response(Element(wire.MESSAGE, {}, [odd]), "t").reason is Reason.SYNTAX
        assert mapping.error_to_response(Element(wire.MESSAGE), "t").reason is Reason.CONTENT

    @pytest.mark.parametrize("namespace", [E2E, "urn:ietf:params:xml:xmpp-e2e"])
    def test_details_of_rfc_3923_are_read(self, namespace: str) -> None:
        """T8, X27."""
        for name, reason in [
            ("bad-timestamp", Reason.TIMESTAMP),
            ("unverified-signature", Reason.SIGNATURE),
            ("signature-unverified", Reason.SIGNATURE),
            ("decryption-failed", Reason.DECRYPTION),
        ]:
            detail = Element(f"{{{namespace}}}{name}")
            error = wire.error_element("not-acceptable", application=detail)
            assert mapping.error_to_response(Element(wire.MESSAGE, {}, [error]), "t").reason is reason
        unknown = Element(wire.MESSAGE, {}, [wire.error_element("service-unavailable")])
        assert mapping.error_to_response(unknown, "t", is_secured_object=True).reason is Reason.CONTENT

    def test_report_is_an_error_stanza_with_the_senders_own_id(self) -> None:
        """GW-12."""
        report = Report(Reason.NO_SUCH_USER, "There is no such user.", BOB, "7")
        op = MessageOperation(BOB, ALICE, "t", text_object(), context=Context(report=report))
        out = sent(op)
        assert out.attributes == {"type": "error", "from": "bob@b.test", "to": "alice@a.test", "id": "7"}
        (error,) = out.elements()
        assert wire.error_of(error) == ("item-not-found", "There is no such user.")

    def test_no_error_for_an_error(self) -> None:
        """XMPP-6."""
        assert (
            mapping.response_to_error(stanza("", "type='error'"), failure("t", Reason.SYNTAX), is_local=False) is None
        )


def test_language_of_a_body_comes_back(  # I18N-1
) -> None:
    out = sent(ingress(stanza("<body xml:lang='pt-BR'>oi</body>")))
    body = out.find(mapping.BODY)
    assert body is not None
    assert body.attributes[XML_LANG] == "pt-BR"
