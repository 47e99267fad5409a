"""Event packages: what a header says, octet by octet (RFC 6665 sections 4.2.1.1, 8.2.1 and 8.4, RFC 3903 section 4)."""

from __future__ import annotations

import pytest

from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.packages import (
    Event,
    Taken,
    accepted,
    bad_event,
    duration_of,
    event_of,
    if_match_of,
    state_value,
)
from comity.cpim.operations import EndReason
from comity.errors import RemoteProtocolError


def request(*headers: tuple[str, str]) -> SipRequest:
    return SipRequest("SUBSCRIBE", "sip:bob@a.test", list(headers))


class TestEvent:
    @pytest.mark.parametrize(
        ("text", "type", "id"),
        [
            ("presence", "presence", ""),
            ("presence;id=3", "presence", "3"),
            ("presence ; adaptive-min-rate=1 ; ID=x.7", "presence", "x.7"),
            ("presence.winfo", "presence.winfo", ""),
            ("Presence", "Presence", ""),
            ("dialog;shared", "dialog", ""),
        ],
    )
    def test_type_and_id(self, text: str, type: str, id: str) -> None:
        event = Event.parse(text)
        assert (event.type, event.id) == (type, id)
        assert Event.parse(str(event)) == event

    @pytest.mark.parametrize(
        "text", ["", ".", "presence.", ".winfo", "presence..winfo", "presence;id", "presence;id=\"a b\"", "presence;id=",
                 "presence, presence", "presence;id=1;id=2", "presence x", f"presence;id={'a' * 129}", "pres\u00e9nce"]
    )  # fmt: skip
    def test_what_breaks_the_grammar_is_refused(self, text: str) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            Event.parse(text)
        assert caught.value.hint == "400"

    @pytest.mark.parametrize(
        ("text", "package"),
        [("presence", "presence"), ("presence.winfo", "presence.winfo"), ("Presence", None), ("presence.winfo.winfo", None),
         ("message-summary", None), ("presence.WINFO", None)],
    )  # fmt: skip
    def test_types_are_compared_octet_by_octet(self, text: str, package: str | None) -> None:
        """SIP-14, N-11."""
        assert Event.parse(text).package == package

    def test_exactly_one(self) -> None:
        """RFC 6665 section 3.1.2."""
        assert event_of(request()) is None
        assert event_of(request(("o", "presence"))) == Event("presence")
        with pytest.raises(RemoteProtocolError):
            event_of(request(("Event", "presence"), ("o", "presence")))

    def test_a_bad_event_names_the_good_ones(self) -> None:
        """RFC 6665 section 4.2.1.1."""
        assert bad_event() == Refusal(489, headers=(("Allow-Events", "presence, presence.winfo"),))


class TestAccept:
    @pytest.mark.parametrize(
        ("accept", "taken"),
        [
            (None, Taken()),
            ("application/pidf+xml", Taken()),
            ("Application/PIDF+xml;q=0.5, x/y", Taken()),
            ("*/*", Taken()),
            ("application/*", Taken()),
            ("multipart/signed, application/pidf+xml", Taken(secured=True)),
            ("application/pkcs7-mime, application/*", Taken(secured=True)),
            ("multipart/signed;q=0, application/pidf+xml", Taken()),
            ("x/y", None),
            ("", None),
            ("application/xpidf+xml, application/cpim-pidf+xml", None),
            ("application/pidf+xml;q=0, */*", None),
            ("multipart/signed", None),
        ],
    )
    def test_what_a_watcher_takes(self, accept: str | None, taken: Taken | None) -> None:
        """SIP-14, SIP-25."""
        assert accepted(request(*([("Accept", accept)] if accept is not None else [])), "presence") == taken

    def test_watcher_information_is_another_type(self) -> None:
        """SIP-29."""
        assert accepted(request(("Accept", "application/watcherinfo+xml")), "presence.winfo") == Taken()
        assert accepted(request(("Accept", "application/pidf+xml")), "presence.winfo") is None
        assert accepted(request(), "presence.winfo") == Taken()

    def test_a_q_that_is_none_is_refused(self) -> None:
        with pytest.raises(RemoteProtocolError):
            accepted(request(("Accept", "application/pidf+xml;q=7")), "presence")


class TestDuration:
    @pytest.mark.parametrize(
        ("expires", "given"), [(None, 3600), ("0", 0), ("60", 60), ("3600", 3600), ("4294967295", 4294967295)]
    )
    def test_as_asked(self, expires: str | None, given: int) -> None:
        """SIP-19: an hour without Expires."""
        assert duration_of(request(*([("Expires", expires)] if expires else [])), 60) == given

    @pytest.mark.parametrize("expires", ["1", "30", "59"])
    def test_too_brief(self, expires: str) -> None:
        """SIP-18."""
        assert duration_of(request(("Expires", expires)), 60) == Refusal(423, headers=(("Min-Expires", "60"),))

    def test_an_hour_is_never_too_brief(self) -> None:
        """RFC 6665 section 4.2.1.1: "smaller than one hour"."""
        assert duration_of(request(("Expires", "3600")), 7200) == 3600


class TestIfMatch:
    def test_one_tag_or_none(self) -> None:
        assert if_match_of(request()) == ""
        assert if_match_of(request(("SIP-If-Match", "dx200xyz"))) == "dx200xyz"

    @pytest.mark.parametrize("value", ["a, b", "", "a b", '"a"', "a;b", "x" * 129])
    def test_anything_else_is_refused(self, value: str) -> None:
        """SIP-31."""
        with pytest.raises(RemoteProtocolError):
            if_match_of(request(("SIP-If-Match", value)))

    def test_two_headers_are_several(self) -> None:
        with pytest.raises(RemoteProtocolError):
            if_match_of(request(("SIP-If-Match", "a"), ("SIP-If-Match", "a")))


def test_subscription_state() -> None:
    """SIP-17: expires unless terminated, a reason if so."""
    assert state_value("active", 599) == "active;expires=599"
    assert state_value("pending", -3) == "pending;expires=0"
    assert state_value("terminated", 5, EndReason.TIMEOUT) == "terminated;reason=timeout"
    assert state_value("terminated", None, EndReason.PROBATION, 9) == "terminated;reason=probation;retry-after=9"
