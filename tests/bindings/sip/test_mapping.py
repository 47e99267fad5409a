"""mapping.py: MESSAGE to operation and back, history, status codes (T1, T3, T4, T8)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.sip.coding import ACCEPT_ENCODING
from comity.bindings.sip.forms import Form, choose_form
from comity.bindings.sip.headers import clean_text
from comity.bindings.sip.history import history_headers, parse_history
from comity.bindings.sip.mapping import (
    REASONS,
    STATUS_CODES,
    Refusal,
    is_sender,
    operation_to_request,
    reason_of,
    request_to_operation,
    response_to_status,
    status_to_response,
)
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.registration import is_harmed_by_objects
from comity.bindings.sip.reports import parse_report, report_headers
from comity.bindings.sip.wire import parse_datagram
from comity.cpim.address import Address
from comity.cpim.imdn import disposition_report
from comity.cpim.message import CpimMessage
from comity.cpim.operations import (
    Context,
    HistoryEntry,
    MessageOperation,
    MimeObject,
    Reason,
    Report,
    Status,
    failure,
    indeterminant,
    success,
)

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
CPIM = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@b.test>\r\nSubject: Ahoj\r\n\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Language: cs\r\n\r\ntext"
)


def request(
    body: bytes = b"hi", content_type: str = "text/plain", *extra: tuple[str, str], uri: str = ""
) -> SipRequest:
    headers = [
        ("Via", "SIP/2.0/UDP h;branch=z9hG4bKb1"),
        ("From", "<sip:alice@a.test;gr=dev1>;tag=1"),
        ("To", "<sip:bob@b.test>"),
        ("Call-ID", "c1@host.test"),
        ("CSeq", "1 MESSAGE"),
        *extra,
    ]
    if content_type:
        headers.append(("Content-Type", content_type))
    return SipRequest("MESSAGE", uri or "sip:bob@b.test", headers, body)


def operation(*args: object, **named: object) -> MessageOperation:
    result = request_to_operation(request(*args, **named), when=WHEN, message_id="m123")  # type: ignore[arg-type]  # passed through
    assert isinstance(result, MessageOperation), result
    return result


def refusal(*args: object, **named: object) -> Refusal:
    result = request_to_operation(request(*args, **named), when=WHEN, message_id="m123")  # type: ignore[arg-type]  # passed through
    assert isinstance(result, Refusal), result
    return result


def outgoing(given: MessageOperation, form: Form, **named: object) -> SipRequest | None:
    fields: dict[str, object] = {"target": "sip:bob@192.0.2.9", "tag": "t1", "call_id": "made@a.test", "accepted": WHEN}
    return operation_to_request(given, form, **(fields | named))  # type: ignore[arg-type]  # passed through


def sent(given: MessageOperation, form: Form, **named: object) -> SipRequest:
    made = outgoing(given, form, **named)
    assert made is not None
    via = [("Via", "SIP/2.0/UDP h;branch=z9hG4bKx")]
    read = parse_datagram(SipRequest("MESSAGE", made.uri_text, [*via, *made.headers], made.body).to_bytes())
    assert isinstance(read, SipRequest)
    return read


class TestIn:
    def test_text_becomes_an_object_of_the_gateway(self) -> None:
        """GW-1, T4."""
        made = operation("grüß".encode(), "text/plain", ("Content-Language", "de"), ("Subject", "Tach"))
        assert (made.source, made.destination, made.trans_id) == (ALICE, BOB, "z9hG4bKb1")
        assert made.is_wrapped
        view = CpimMessage.parse(made.object.octets)
        assert view.content == "grüß".encode()
        assert view.content_type == "text/plain; charset=utf-8"
        assert view.date_time == WHEN
        assert view.message_id == "m123"
        assert dict(view.subjects) == {"de": "Tach"}
        assert view.content_header("content-language") == "de"
        assert made.context.source_resource == "dev1"
        assert made.context.native_id == made.context.thread == "c1@host.test"

    @pytest.mark.parametrize(
        "content_type",
        [
            "message/cpim",
            'multipart/signed;boundary="b";micalg=sha-256',
            "multipart/encrypted; boundary=b",
            "application/pkcs7-mime;smime-type=enveloped-data",
        ],
    )
    def test_objects_and_secured_entities_stay_as_they_are(self, content_type: str) -> None:
        """GW-1, T5: MIME headers written from values, never Content-Length."""
        extra = [("Content-Transfer-Encoding", "binary"), ("content-ID", "<x@y>"), ("Content-Length", "7")]
        made = operation(CPIM, content_type, *extra)
        assert made.object.octets == CPIM
        assert not made.is_wrapped
        block = made.object.header_block.decode()
        assert f"Content-Type: {content_type}\r\n" in block
        assert "Content-Transfer-Encoding: binary\r\nContent-ID: <x@y>\r\n" in block
        assert "ength" not in block

    def test_any_other_single_content_is_carried_inside_an_object(self) -> None:
        """SIP-1, invut."""
        view = CpimMessage.parse(operation(b"\0\xff", "application/unknownformat").object.octets)
        assert (view.content, view.content_type) == (b"\0\xff", "application/unknownformat")

    @pytest.mark.parametrize(
        ("extra", "code"),
        [
            ([("Content-Encoding", "br")], 415),
            ([("Max-Forwards", "x")], 400),
            ([("Expires", "x")], 400),
            ([("Expires", "9"), ("Date", "Fri, 01 Jan 2010 16:00:00 EST")], 400),
            ([("Expires", "9"), ("Date", "yesterday GMT")], 400),
        ],
        ids=str,
    )
    def test_headers_that_cannot_be_obeyed_refuse_the_request(self, extra: list[tuple[str, str]], code: int) -> None:
        """S-43, S-44, baddate."""
        made = refusal(b"hi", "text/plain", *extra)
        assert made.status_code == code
        if code == 415:
            assert made.headers == (("Accept-Encoding", ACCEPT_ENCODING),)

    def test_content_types_must_be_readable(self) -> None:
        assert refusal(b"hi", "text").status_code == 400
        assert refusal(b"hi", "").status_code == 400
        assert CpimMessage.parse(operation(b"", "").object.octets).content == b""

    def test_recipients_must_be_addresses(self) -> None:
        assert refusal(uri="sip:b.test").status_code == 404
        assert refusal(uri="sip:%ff@b.test").status_code == 404
        made = operation(uri="sip:f%C3%BC@b.test;gr=balcony")
        assert made.destination == Address("im", "fü", "b.test")
        assert made.context.resource == "balcony"
        assert operation(uri="im:bob@b.test").destination == BOB  # ADDR-29

    @pytest.mark.parametrize(("given", "kept"), [(None, 70), ("1", 1), ("5", 5), ("70", 70), ("255", 70)])
    def test_hop_limits_are_clamped(self, given: str | None, kept: int) -> None:
        """T2, S-44."""
        extra = [] if given is None else [("Max-Forwards", given)]
        assert operation(b"hi", "text/plain", *extra).max_forwards == kept
        assert refusal(b"hi", "text/plain", ("Max-Forwards", "0")).status_code == 483

    def test_expires_counts_from_date_else_from_receipt(self) -> None:
        """SIP-5, S-37."""
        assert operation().context.lifetime is None
        assert operation(b"hi", "text/plain", ("Expires", "0")).context.lifetime == 0
        assert operation(b"hi", "text/plain", ("Expires", "60")).context.lifetime == 60
        date = ("Date", "Fri, 02 Jan 2026 03:03:35 GMT")
        assert operation(b"hi", "text/plain", ("Expires", "60"), date).context.lifetime == 30
        assert operation(b"hi", "text/plain", ("Expires", "10"), date).context.lifetime == 0

    def test_ip_addresses_in_call_ids_stay_here(self) -> None:
        """SEC-37."""
        for host in ("192.0.2.1", "[2001:db8::1]", "192.0.2.1:5060"):
            made = request()
            made.headers = [(n, f"abc@{host}" if n == "Call-ID" else v) for n, v in made.headers]
            result = request_to_operation(made, when=WHEN, message_id="m123")
            assert isinstance(result, MessageOperation)
            assert result.context.thread == "abc"

    def test_composing_states_are_transient(self) -> None:
        assert operation(b"<x/>", "application/im-iscomposing+xml").context.transient
        assert not operation().context.transient

    @settings(deadline=None)
    @given(st.binary(max_size=200), st.text(st.characters(codec="utf-8"), max_size=30))
    def test_whatever_stands_in_the_request_gives_a_value(self, body: bytes, text: str) -> None:
        for name in ("Subject", "Content-Language", "Date", "Expires", "Comity-History", "Content-Type", "Content-ID"):
            made = request(body, "text/plain" if name != "Content-Type" else text, (name, text), ("Expires", "5"))
            request_to_operation(made, when=WHEN, message_id="m123")


class TestHistory:
    entries = st.lists(
        st.builds(
            HistoryEntry,
            st.from_regex(r"[a-z]{1,10}\.test", fullmatch=True),
            st.sampled_from(["sip", "xmpp", "apex"]),
            st.sampled_from(["sip", "xmpp", "apex"]),
            st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
                lambda d: d.replace(tzinfo=UTC, microsecond=0)
            ),
            st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp", "Cf")), max_size=20),
        ),
        max_size=64,
    )

    @settings(deadline=None, max_examples=50)
    @given(entries)
    def test_history_survives_the_header(self, entries: list[HistoryEntry]) -> None:
        """GW-8."""
        links = cycle([(None, None), (True, True), (True, False), (False, True), (False, False)])
        entries = [replace(entry, in_tls=tls[0], out_tls=tls[1]) for entry, tls in zip(entries, links, strict=False)]
        headers = history_headers(tuple(entries))
        assert len(headers) <= 8
        read = parse_datagram(request(b"", "text/plain", *headers).to_bytes())
        assert isinstance(read, SipRequest)
        assert parse_history(read) == tuple(entries)

    @pytest.mark.parametrize(
        "text", ["", "a.test", "a.test;in=sip;out=xmpp", "a.test;in=sip;out=xmpp;time=x", "a;time=2026-01-01", ";;;"]
    )
    def test_entries_that_cannot_be_read_are_left_out(self, text: str) -> None:
        good = "b.test;in=sip;out=xmpp;time=2026-01-01T00:00:00Z"
        found = parse_history(request(b"", "text/plain", ("Comity-History", text), ("Comity-History", good)))
        assert [entry.node for entry in found] == ["b.test"]


def carrying(obj: MimeObject, **context: object) -> MessageOperation:
    return MessageOperation(ALICE, BOB, "t", obj, context=Context(**context))  # type: ignore[arg-type]  # passed through


OBJECT = MimeObject.of("message/cpim", CPIM)
SIGNED = MimeObject.of(
    'multipart/signed; boundary="b"; micalg=sha-256; protocol="application/pkcs7-signature"',
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nthe text\r\n--b\r\n"
    b"Content-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--b--\r\n",
)
ENCRYPTED = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", b"\x30\x80")
IMAGE = MimeObject.of("message/cpim", CPIM.replace(b"text/plain; charset=utf-8", b"image/png"))


class TestOut:
    @pytest.mark.parametrize(
        ("obj", "takes_cpim", "form"),
        [
            (OBJECT, True, Form.OBJECT),
            (OBJECT, False, Form.TEXT),
            (SIGNED, True, Form.OBJECT),
            (SIGNED, False, Form.OBJECT),
            (ENCRYPTED, False, Form.OBJECT),
            (IMAGE, False, Form.OBJECT),
        ],
    )
    def test_what_a_device_is_offered_first(self, obj: MimeObject, takes_cpim: bool, form: Form) -> None:
        """GW-2."""
        assert choose_form(carrying(obj), takes_cpim=takes_cpim) is form

    @pytest.mark.parametrize(
        ("obj", "form"),
        [(OBJECT, Form.TEXT), (SIGNED, Form.READABLE), (ENCRYPTED, Form.READABLE), (IMAGE, None)],
    )
    def test_what_a_device_is_offered_that_objects_harm(self, obj: MimeObject, form: Form | None) -> None:
        """COMPAT Linphone, PJSUA. Of an encrypted object no text can be made, so that one is refused."""
        assert choose_form(carrying(obj), takes_cpim=False, only_text=True) is form
        assert choose_form(carrying(obj), takes_cpim=True, only_text=True) is Form.OBJECT

    @pytest.mark.parametrize("is_passing", [True, False])
    def test_what_only_xmpp_programs_read_is_not_sent_to_a_phone(self, is_passing: bool) -> None:
        """COMPAT PJSUA, Twinkle."""
        beside = MimeObject.of("application/xmpp+xml; charset=utf-8", b"<xmpp xmlns='jabber:client'><message/></xmpp>")
        assert choose_form(carrying(beside, transient=is_passing), takes_cpim=False) is None
        assert choose_form(carrying(beside, transient=is_passing), takes_cpim=True) is Form.OBJECT

    @pytest.mark.parametrize(
        ("branch", "accepts", "is_harmed"),
        [
            ("z9hG4bK-1", set(), False),
            ("z9hG4bK-1", {"application/sdp"}, False),
            ("z9hG4bK.91ykVnx0D", {"application/sdp", "text/plain", "application/vnd.gsma.rcs-ft-http+xml"}, True),
            ("z9hG4bK.91ykVnx0D", {"text/plain", "multipart/signed"}, False),
            ("z9hG4bK-1", {"text/plain", "*/*"}, False),
            ("z9hG4bKPjO8fIoK758GC", set(), True),
        ],
    )
    def test_devices_that_objects_harm_are_known_by_their_register(
        self, branch: str, accepts: set[str], is_harmed: bool
    ) -> None:
        """COMPAT Linphone, PJSUA."""
        assert is_harmed_by_objects(branch, accepts) is is_harmed

    def test_twinkle_is_known_by_its_name(self) -> None:
        """COMPAT Twinkle."""
        assert is_harmed_by_objects("z9hG4bK-1", set(), "Twinkle/1.10.2")
        assert not is_harmed_by_objects("z9hG4bK-1", set(), "Not Twinkle/1")

    def test_an_object_leaves_octet_by_octet(self) -> None:
        for obj in (OBJECT, SIGNED, ENCRYPTED, IMAGE):
            made = sent(carrying(obj), Form.OBJECT)
            assert made.body == obj.octets
            assert made.content_type == obj.content_type

    def test_text_leaves_with_its_language_and_subject(self) -> None:
        """I18N-1."""
        made = sent(carrying(OBJECT), Form.TEXT)
        assert (made.body, made.content_type) == (b"text", "text/plain;charset=utf-8")
        assert (made.value("subject"), made.value("content-language")) == ("Ahoj", "cs")
        assert made.value("date") == "Fri, 02 Jan 2026 03:04:05 GMT"

    def test_a_signed_text_says_plainly_what_is_not_proved(self) -> None:
        made = sent(carrying(SIGNED), Form.READABLE)
        assert made.body.startswith(b"the text\r\n\r\n[This message was signed by its sender.")
        assert outgoing(carrying(ENCRYPTED), Form.READABLE) is None
        assert outgoing(carrying(ENCRYPTED), Form.TEXT) is None

    def test_a_report_is_a_readable_text(self) -> None:
        report = Report(Reason.AWAY, "It could not be delivered in time.", BOB)
        given = carrying(OBJECT, report=report)
        assert choose_form(given, takes_cpim=False) is Form.TEXT
        assert choose_form(given, takes_cpim=True) is Form.OBJECT
        body = sent(given, Form.TEXT).body
        assert body == b"Your message to bob@b.test was not delivered. It could not be delivered in time."

    @pytest.mark.parametrize(("thread", "call_id"), [("c1@host.test", "c1@host.test"), ("a b\r\nX: y", "made@a.test")])
    def test_a_thread_is_the_call_id_where_it_can_be(self, thread: str, call_id: str) -> None:
        """T4."""
        assert sent(carrying(OBJECT, thread=thread), Form.TEXT).call_id == call_id

    def test_resources_are_gr_parameters_and_hops_are_clamped(self) -> None:
        """T2, T4, ADDR-20."""
        made = sent(carrying(OBJECT, resource="bal cony", source_resource="öl", lifetime=30.7), Form.OBJECT)
        assert str(made.to.uri) == "sip:bob@b.test;gr=bal%20cony"
        assert str(made.from_.uri) == "sip:alice@a.test;gr=%C3%B6l"
        assert made.max_forwards == 70
        assert made.expires == 30

    @pytest.mark.parametrize("subject", ["a\r\nX-Evil: 1", "a\x00b", "\u2028", "\ud800"])
    def test_subjects_cannot_make_headers(self, subject: str) -> None:
        made = sent(carrying(IMAGE, subject=subject), Form.OBJECT)
        assert made.value("x-evil") is None

    @settings(deadline=None)
    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.text(max_size=20))
    def test_any_address_and_context_can_be_written(self, local: str, text: str) -> None:
        source = Address("im", local, "a.test")
        context = Context(thread=text, subject=text, language=text, source_resource=local, resource=local)
        made = operation_to_request(
            MessageOperation(source, BOB, "t", OBJECT, context=context),
            Form.TEXT,
            target="sip:x@192.0.2.1",
            tag="t",
            call_id="c",
            accepted=WHEN,
        )
        assert made is not None
        via = [("Via", "SIP/2.0/UDP h;branch=z9hG4bKx")]
        read = parse_datagram(SipRequest("MESSAGE", made.uri_text, [*via, *made.headers], made.body).to_bytes())
        assert isinstance(read, SipRequest)

    @settings(deadline=None)
    @given(st.binary(max_size=300), st.sampled_from(["message/cpim", "multipart/signed; boundary=x"]))
    def test_object_octets_are_equal_from_request_to_request(self, body: bytes, kind: str) -> None:
        """G3: SHA-256 at ingress equals SHA-256 at egress."""
        made = operation(body, kind)
        back = sent(made, Form.OBJECT)
        assert back.body == body
        assert back.content_type == kind


class TestReports:
    """``Comity-Report``: why a message failed, for a client of ours (GW-12, T8)."""

    @given(st.sampled_from(Reason), st.text(max_size=200), st.text('abc é"\\\\;,=%', min_size=1, max_size=20))
    def test_a_report_survives_the_header(self, reason: Reason, text: str, local: str) -> None:
        report = Report(reason, text, Address("im", local, "a.test"), "ignored: the Call-ID says it")
        sent = request(b"", "", *report_headers(report)).to_bytes()
        received = parse_datagram(sent)
        assert isinstance(received, SipRequest), received
        got = parse_report(received)
        assert got == Report(reason, clean_text(clean_text(text)[:120]), report.recipient, "c1@host.test")

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "none",
            "denied",
            "denied;to=x",
            'denied;to="sip:b@a.test"',
            'denied;to="im:b@a.test";to="im:c@a.test"',
            "denied;;",
        ],
    )
    def test_one_that_cannot_be_read_is_none(self, value: str) -> None:
        assert parse_report(SipRequest("MESSAGE", "sip:b@h", [("Comity-Report", value), ("Call-ID", "c")], b"")) is None
        assert parse_report(SipRequest("MESSAGE", "sip:b@h", [("Call-ID", "c")], b"")) is None

    def test_it_stands_beside_the_object_alone_and_fits_a_datagram(self) -> None:
        """A stock phone gets the same in words; names and sentence here are as long as they are allowed to be."""
        report = Report(Reason.DECRYPTION, "x" * 500, BOB, "c1")
        failed = MimeObject.of("message/cpim", CPIM)
        when = datetime(2026, 1, 1, tzinfo=UTC)
        thing = disposition_report(failed, sender=ALICE, recipient=BOB, when=when, message_id="m" * 24)
        entry = HistoryEntry("a.test", "comity", "sip", when)
        carried = MessageOperation(
            ALICE, BOB, "t", thing, context=Context(thread="c1", report=report), history=(entry,)
        )
        target = "sip:alice@198.51.100.7:5060"
        whole, words = (
            operation_to_request(carried, form, target=target, tag="t", call_id="c", accepted=when)
            for form in (Form.OBJECT, Form.TEXT)
        )
        assert whole is not None
        assert words is not None
        assert (whole.value("comity-report") is None, words.value("comity-report")) == (False, None)
        assert len(whole.to_bytes()) < 1300 - 130  # the rest is for Via


class TestAnswers:
    @pytest.mark.parametrize("reason", list(Reason))
    def test_every_reason_has_a_status_code(self, reason: Reason) -> None:
        """T1, T8."""
        code, _, headers = response_to_status(failure("t", reason))
        assert code == STATUS_CODES[reason][0]
        assert (("Retry-After", "30") in headers) is (code == 503)
        assert any(name == "Accept" for name, _ in headers) is (code == 415)

    def test_success_and_indeterminant(self) -> None:
        assert response_to_status(success("t"))[0] == 200
        assert response_to_status(indeterminant("t"))[0] == 202
        assert response_to_status(failure("t", Reason.QUOTA, retry_after=9))[2] == [("Retry-After", "9")]
        assert response_to_status(failure("t", Reason.TIMESTAMP))[:2] == (400, "Incorrect Date or Time")

    @pytest.mark.parametrize(("code", "reason"), REASONS.items())
    def test_every_status_code_has_its_reason(self, code: int, reason: Reason) -> None:
        """T3."""
        made = status_to_response("t", SipResponse(code, "Why", [("Retry-After", "7 (soon)")]), Form.OBJECT)
        assert (made.status, made.reason, made.retry_after) == (Status.FAILURE, reason, 7)
        assert made.text == f"The answer was {code} Why."

    @pytest.mark.parametrize(
        ("code", "reason"), [(302, Reason.NO_ROUTE), (499, Reason.SYNTAX), (599, Reason.INTERNAL), (699, Reason.AWAY)]
    )
    def test_other_codes_go_by_their_class(self, code: int, reason: Reason) -> None:
        assert reason_of(code) is reason

    @pytest.mark.parametrize(
        ("code", "phrase", "reason"),
        [
            (400, "Incorrect Date or Time", Reason.TIMESTAMP),
            (400, " incorrect date OR time ", Reason.TIMESTAMP),
            (403, "Signature Not Verified", Reason.SIGNATURE),
            (403, "Protection Not Available", Reason.PROTECTION),
            (400, "Signature Not Verified", Reason.SYNTAX),
            (403, "Incorrect Date or Time", Reason.DENIED),
            (403, "Forbidden", Reason.DENIED),
            (493, "anything", Reason.DECRYPTION),
        ],
    )
    def test_some_reasons_are_told_by_the_phrase_alone(self, code: int, phrase: str, reason: Reason) -> None:
        """T8, SEC-26: RFC 3428 section 11.4 has no code of its own for a wrong time."""
        answer = SipResponse(code, phrase, [])
        assert status_to_response("t", answer, Form.OBJECT).reason is reason

    def test_codes_and_reasons_agree_there_and_back(self) -> None:
        changed = {Reason.NO_ROUTE, Reason.SUBSCRIPTION_EXISTS, Reason.QUOTA, Reason.EXPIRED}
        changed |= {Reason.INTERNAL, Reason.PROTECTION}
        for reason in set(Reason) - changed:
            assert reason_of(*STATUS_CODES[reason]) is reason

    @pytest.mark.parametrize(
        ("uri", "same"),
        [
            ("sip:alice@a.test", True),
            ("sips:alice@A.TEST:5061;transport=tcp", True),
            ("sip:%61lice@a.test", True),
            ("im:alice@a.test", True),
            ("sip:alice%40a.test@a.test", False),
            ("sip:alice@b.test", False),
            ("tel:911", False),
            ("sip:a.test", False),
        ],
    )
    def test_senders_are_compared_decoded(self, uri: str, same: bool) -> None:
        """S-06, S-12, S-13."""
        assert is_sender(uri, ALICE) is same


def test_lifetime_never_goes_negative() -> None:
    extra = [("Expires", "4294967295"), ("Date", "Fri, 02 Jan 2026 03:04:05 GMT")]
    lifetime = operation(b"hi", "text/plain", *extra).context.lifetime
    assert lifetime is not None
    assert timedelta(seconds=lifetime) > timedelta(days=1000)
