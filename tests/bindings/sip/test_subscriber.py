"""The subscriber's side of a subscription (RFC 6665 section 4.1), every code and reason (SIP-15, SIP-20, SIP-21, SIP-24, GW-13)."""

from __future__ import annotations

import itertools

import pytest

from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriber import (
    TRANSITIONS,
    Ended,
    Event,
    Input,
    Notified,
    Pended,
    RefreshFailed,
    Send,
    State,
    Subscriber,
    Wish,
)
from comity.bindings.sip.subscriber_rules import (
    CANCELLING_CODES,
    ENDING_CODES,
    Again,
    EndCause,
    SubscriptionStateValue,
    end_of_answer,
    end_of_notify,
    pause,
    refresh_in,
)
from comity.errors import RemoteProtocolError

PIDF = b"<presence/>"


class Line:
    """A subscriber, and a notifier played by hand."""

    def __init__(self, **wish: object) -> None:
        numbers = itertools.count(1)
        what = Wish("sip:bob@b.test", "sip:alice@a.test", "<sip:alice@192.0.2.7:5060>", **wish)  # type: ignore[arg-type]  # keywords of a test
        self.subscriber = Subscriber(what, random=lambda size: next(numbers).to_bytes(size, "big"))
        self.now = 1000.0
        self.cseq = 100
        self.tag = "n1"
        self.last: Send | None = None

    def events(self) -> list[Event]:
        happened: list[Event] = []
        while (event := self.subscriber.next_event()) is not None:
            happened.append(event)
        self.last = next((event for event in reversed(happened) if isinstance(event, Send)), self.last)
        return happened

    def begin(self) -> SipRequest:
        self.subscriber.subscribe(self.now)
        (sent,) = self.events()
        assert isinstance(sent, Send)
        return sent.request

    def answer(self, code: int, *headers: tuple[str, str], has_credentials: bool = False) -> list[Event]:
        assert self.last is not None
        response = SipResponse(code, f"Phrase {code}", headers)
        self.subscriber.take_answer(self.last.id, response, self.now, has_credentials=has_credentials)
        return self.events()

    def notify(
        self, state: str = "active;expires=3600", body: bytes = PIDF, *, event: str = "presence", cseq: int = 0
    ) -> int:
        assert self.last is not None
        self.cseq += 1
        sent = self.last.request
        headers = [
            ("From", f"<sip:bob@b.test>;tag={self.tag}"),
            ("To", f"<sip:alice@a.test>;tag={sent.from_.tag}"),
            ("Call-ID", sent.call_id),
            ("CSeq", f"{cseq or self.cseq} NOTIFY"),
            ("Contact", "<sip:pa@192.0.2.9>"),
            ("Event", event),
            ("Subscription-State", state),
        ]
        return self.subscriber.take_notify(SipRequest("NOTIFY", "sip:alice@192.0.2.7", headers, body), self.now)[0]

    def stand(self, expires: int = 3600) -> None:
        """An active subscription whose first SUBSCRIBE is answered."""
        self.begin()
        self.answer(200, ("Expires", str(expires)))
        assert self.notify(f"active;expires={expires}") == 200
        assert [type(event) for event in self.events()] == [Notified]

    def pass_time(self, seconds: float) -> list[Event]:
        """Let time go on, each timer in its turn."""
        until = self.now + seconds
        while (timer := self.subscriber.next_timer()) is not None and timer <= until:
            self.now = max(self.now, timer)
            self.subscriber.handle_timer(self.now)
        self.now = until
        return self.events()


def value(request: SipRequest, name: str) -> str:
    return request.value(name) or ""


def ended(events: list[Event]) -> Ended:
    (end,) = [event for event in events if isinstance(event, Ended)]
    return end


class TestBegin:
    """Section 4.1.2.1."""

    def test_a_subscribe_says_what_is_wanted_outside_of_any_dialog(self) -> None:
        request = Line(accept="application/pidf+xml, multipart/signed").begin()
        assert (request.method, request.uri_text) == ("SUBSCRIBE", "sip:bob@b.test")
        assert not request.to.tag
        assert value(request, "event") == "presence"
        assert value(request, "expires") == "3600"
        assert value(request, "accept") == "application/pidf+xml, multipart/signed"
        assert value(request, "contact") == "<sip:alice@192.0.2.7:5060>"

    @pytest.mark.parametrize("code", [200, 202])
    def test_a_202_is_a_200(self, code: int) -> None:
        """SIP-15."""
        line = Line()
        line.begin()
        assert line.answer(code, ("Expires", "600")) == []
        assert line.notify("pending;expires=600", b"") == 200
        assert line.events() == [Pended()]
        assert line.subscriber.state is State.PENDING

    def test_the_notify_may_come_first(self) -> None:
        """SIP-20: "MUST be prepared to receive NOTIFY requests before the SUBSCRIBE transaction has completed"."""
        line = Line()
        line.begin()
        assert line.notify("active;expires=300") == 200
        assert line.answer(200, ("Expires", "3600"))[1:] == []
        assert line.subscriber.state is State.ACTIVE
        (sent,) = line.pass_time(240)  # what the NOTIFY said counts
        assert isinstance(sent, Send)

    def test_without_any_notify_timer_n_ends_it(self) -> None:
        """SIP-20: Timer N is 64*T1."""
        line = Line(is_lasting=False)
        line.begin()
        line.answer(200, ("Expires", "3600"))
        assert line.pass_time(31.9) == []
        end = ended(line.pass_time(0.2))
        assert end.end.cause is EndCause.UNANSWERED
        assert line.notify() == 481  # "SHOULD reject any such NOTIFY requests"
        assert line.subscriber.is_done

    def test_a_204_waits_for_no_notify(self) -> None:
        line = Line()
        line.begin()
        line.answer(204, ("Expires", "3600"))
        assert line.pass_time(100) == []

    def test_a_challenge_is_answered_with_a_higher_cseq_in_the_same_call(self) -> None:
        line = Line()
        first = line.begin()
        (sent,) = line.answer(401, has_credentials=True)
        assert isinstance(sent, Send)
        again = sent.request
        assert again.call_id == first.call_id
        assert again.from_.tag == first.from_.tag
        assert again.cseq.number == first.cseq.number + 1

    def test_a_challenge_that_cannot_be_answered_ends_it_for_good(self) -> None:
        line = Line()
        line.begin()
        assert ended(line.answer(401)).retry_at is None

    def test_refused_credentials_are_not_tried_for_ever(self) -> None:
        line = Line()
        line.begin()
        line.answer(401, has_credentials=True)
        line.answer(401, has_credentials=True)
        assert ended(line.answer(401, has_credentials=True)).end.again is Again.NEVER

    def test_423_is_asked_again_with_the_least_that_is_taken(self) -> None:
        """SIP-18 from the other side; GW-13: transient."""
        line = Line(duration=60)
        line.begin()
        (sent,) = line.answer(423, ("Min-Expires", "300"))
        assert isinstance(sent, Send)
        assert value(sent.request, "expires") == "300"

    @pytest.mark.parametrize("least", ["", "60", "59", "4294967296", "soon"])
    def test_423_that_helps_nobody_is_a_refusal_that_may_pass(self, least: str) -> None:
        line = Line(duration=60)
        line.begin()
        end = ended(line.answer(423, ("Min-Expires", least)))
        assert (end.end.again, end.end.is_cancelled) == (Again.LATER, False)


class TestForks:
    """SIP-24: one dialog is kept."""

    def test_the_notify_of_another_fork_gets_481(self) -> None:
        line = Line()
        line.begin()
        line.answer(200, ("Expires", "3600"))
        assert line.notify() == 200
        line.tag = "n2"
        assert line.notify() == 481
        line.tag = "n1"
        assert line.notify() == 200
        assert len(line.events()) == 2

    def test_a_notify_of_nobody_gets_481(self) -> None:
        line = Line()
        first = line.begin()
        other = SipRequest("NOTIFY", "sip:alice@a.test", [*first.headers, ("Subscription-State", "active")])
        assert line.subscriber.take_notify(other, line.now)[0] == 481
        assert not line.subscriber.is_for_us(other)

    def test_what_is_older_than_the_last_is_refused(self) -> None:
        """SIP-24: the highest CSeq is current."""
        line = Line()
        line.stand()
        assert line.notify(cseq=90) == 500
        assert line.events() == []

    @pytest.mark.parametrize(
        ("event", "code"),
        [("presence", 200), ("presence;id=1", 481), ("Presence", 489), ("dialog", 489), ("", 489)],
    )
    def test_the_event_is_compared_octet_by_octet(self, event: str, code: int) -> None:
        line = Line()
        line.begin()
        assert line.notify(event=event) == code

    @pytest.mark.parametrize("state", ["", "active;expires=x", "active;expires=1;expires=2", ";"])
    def test_a_notify_that_says_no_state_is_refused_and_changes_nothing(self, state: str) -> None:
        line = Line()
        line.begin()
        assert line.notify(state) == 400
        assert line.subscriber.state is State.NOTIFY_WAIT
        assert line.notify() == 200


class TestRefresh:
    """Section 4.1.2.2; RFC 8048 section 5.2.2."""

    @pytest.mark.parametrize(("granted", "at"), [(3600, 3536), (300, 236), (128, 64), (60, 30), (2, 1)])
    def test_it_is_refreshed_in_time(self, granted: int, at: int) -> None:
        assert refresh_in(granted) == at
        line = Line()
        line.stand(granted)
        assert line.pass_time(at - 0.1) == []
        (sent,) = line.pass_time(0.2)
        assert isinstance(sent, Send)
        assert (sent.request.uri_text, sent.request.to.tag) == ("sip:pa@192.0.2.9", "n1")
        line.answer(200, ("Expires", str(granted)))
        assert line.notify(f"active;expires={granted}") == 200
        assert [type(event) for event in line.events()] == [Notified]

    def test_notifications_do_not_put_a_refresh_off(self) -> None:
        line = Line()
        line.stand(3600)
        sent = 0
        for second in range(10, 3600, 10):
            sent += sum(isinstance(event, Send) for event in line.pass_time(10))
            if sent:
                break
            line.notify(f"active;expires={3600 - second}")
            line.events()
        assert line.now - 1000 <= 3540

    @pytest.mark.parametrize("code", sorted(ENDING_CODES))
    def test_these_codes_end_it(self, code: int) -> None:
        """SIP-20."""
        line = Line()
        line.stand()
        line.pass_time(3540)
        end = ended(line.answer(code))
        assert line.subscriber.end is not None
        assert end.end.status_code == code

    @pytest.mark.parametrize(
        "code", [*sorted(set(range(400, 494)) - ENDING_CODES - {423}), 500, 502, 503, 504, 513, 600, 603, 606, 302]
    )
    def test_the_others_leave_it_standing_until_its_time_is_over(self, code: int) -> None:
        """SIP-20: "the original subscription is still considered valid for the duration"."""
        line = Line()
        line.stand()
        line.pass_time(3540)
        (failed,) = line.answer(code)
        assert failed == RefreshFailed(code, f"Phrase {code}")
        assert line.notify("active") == 200
        assert line.subscriber.state is State.ACTIVE
        line.events()
        events = line.pass_time(61)
        assert ended(events).end.cause in (EndCause.TIMEOUT, EndCause.UNANSWERED)

    def test_a_refresh_without_notify_ends_it(self) -> None:
        line = Line()
        line.stand()
        line.pass_time(3540)
        line.answer(200, ("Expires", "3600"))
        assert ended(line.pass_time(33)).end.cause is EndCause.UNANSWERED

    @pytest.mark.parametrize("is_timeout", [True, False])
    def test_a_refresh_without_answer_ends_it(self, is_timeout: bool) -> None:
        line = Line()
        line.stand()
        line.pass_time(3540)
        assert line.last is not None
        line.subscriber.failed(line.last.id, line.now, is_timeout=is_timeout)
        assert ended(line.events()).retry_at is not None

    def test_481_to_a_refresh_begins_anew_at_once_with_new_identifiers(self) -> None:
        """GW-13: transient."""
        line = Line()
        line.stand()
        first = line.subscriber._call_id
        line.pass_time(3540)
        assert ended(line.answer(481)).retry_at == line.now
        (sent,) = line.pass_time(0)
        assert isinstance(sent, Send)
        assert not sent.request.to.tag
        assert sent.request.call_id != first
        assert line.notify() == 200

    def test_a_longer_grant_than_asked_is_not_believed(self) -> None:
        line = Line(duration=600)
        line.begin()
        line.answer(200, ("Expires", "9999"))
        line.notify("active;expires=9999")
        line.events()
        assert [type(event) for event in line.pass_time(537)] == [Send]


class TestEnd:
    """Sections 4.1.2.3 and 4.1.3."""

    @pytest.mark.parametrize(
        ("reason", "again", "wait"),
        [
            ("deactivated", Again.NOW, 0),
            ("deactivated;retry-after=60", Again.NOW, 0),
            ("probation", Again.LATER, 5),
            ("probation;retry-after=60", Again.LATER, 60),
            ("rejected;retry-after=60", Again.NEVER, None),
            ("timeout", Again.NOW, 0),
            ("giveup", Again.LATER, 5),
            ("giveup;retry-after=600", Again.LATER, 600),
            ("noresource", Again.NEVER, None),
            ("invariant;retry-after=31536000", Again.NEVER, None),
            ("somethingelse", Again.LATER, 5),
            ("unanswered", Again.LATER, 5),  # a word of ours is no reason of theirs
            ("somethingelse;retry-after=30", Again.LATER, 30),
            ("", Again.LATER, 5),
        ],
    )
    def test_reasons_are_obeyed(self, reason: str, again: Again, wait: float | None) -> None:
        """SIP-21."""
        line = Line()
        line.stand()
        line.pass_time(100)
        assert line.notify(f"terminated;reason={reason}" if reason else "terminated", b"") == 200
        (end,) = line.events()
        assert isinstance(end, Ended)
        assert end.end.again is again
        assert end.retry_at == (None if wait is None else line.now + wait)
        assert line.notify() == 481
        sent = line.pass_time(wait or 0) if wait is not None else line.pass_time(10**6)
        assert [type(event) for event in sent] == ([Send] if wait is not None else [])

    def test_a_notifier_that_ends_it_again_and_again_is_given_time(self) -> None:
        """RFC 8048 section 8.1: no amplification."""
        line = Line()
        line.begin()
        for _ in range(20):
            line.answer(200, ("Expires", "3600"))
            line.notify("active;expires=3600")
            line.notify("terminated;reason=deactivated", b"")
            retry_at = ended(line.events()).retry_at
            assert retry_at is not None
            line.pass_time(retry_at - line.now)
        assert line.now - 1000 > 10_000

    def test_the_last_notify_may_bring_state(self) -> None:
        line = Line()
        line.stand()
        line.notify("terminated;reason=noresource", PIDF)
        notified, end = line.events()
        assert isinstance(notified, Notified)
        assert notified.is_last
        assert isinstance(end, Ended)

    @pytest.mark.parametrize("code", [400, 403, 404, 405, 406, 415, 420, 489, 501, 603, 604])
    def test_a_refusal_that_the_next_one_would_get_too_is_final(self, code: int) -> None:
        line = Line()
        line.begin()
        end = ended(line.answer(code))
        assert end.retry_at is None
        assert end.end.is_cancelled is (code in CANCELLING_CODES)

    @pytest.mark.parametrize("code", [302, 408, 480, 481, 500, 502, 503, 504, 600])
    def test_a_refusal_that_may_pass_is_tried_again_with_growing_pauses(self, code: int) -> None:
        line = Line()
        line.begin()
        pauses = []
        for _ in range(12):
            end = ended(line.answer(code))
            assert end.retry_at is not None
            pauses.append(end.retry_at - line.now)
            line.pass_time(pauses[-1])
        assert pauses == [pause(tries) for tries in range(12)]
        assert pauses[0] == 5
        assert pauses[-1] == 3600

    def test_retry_after_of_an_answer_is_obeyed(self) -> None:
        line = Line()
        line.begin()
        assert ended(line.answer(503, ("Retry-After", "120 (maintenance);duration=60"))).retry_at == line.now + 120

    def test_unsubscribe_is_a_refresh_of_no_time(self) -> None:
        line = Line()
        line.stand()
        line.subscriber.unsubscribe(line.now)
        (sent,) = line.events()
        assert isinstance(sent, Send)
        assert (value(sent.request, "expires"), sent.request.to.tag) == ("0", "n1")
        line.answer(200, ("Expires", "0"))
        assert line.notify("active;expires=3000") == 200  # it crossed
        assert line.notify("terminated;reason=timeout", b"") == 200
        assert ended(line.events()).retry_at is None
        assert line.subscriber.is_done
        assert line.subscriber.next_timer() is None

    def test_unsubscribe_without_last_notify_ends_by_timer_n(self) -> None:
        line = Line()
        line.stand()
        line.subscriber.unsubscribe(line.now)
        line.events()
        line.answer(200)
        line.notify("active;expires=3000")
        line.pass_time(33)
        assert line.subscriber.is_done

    @pytest.mark.parametrize("code", [200, 204, 403, 481, 500])
    def test_unsubscribe_ends_it_whatever_the_answer(self, code: int) -> None:
        line = Line()
        line.stand()
        line.subscriber.unsubscribe(line.now)
        line.events()
        line.answer(code)
        line.pass_time(33)
        assert line.subscriber.is_done

    def test_unsubscribe_before_anything_came_waits_for_the_dialog(self) -> None:
        line = Line()
        line.begin()
        line.subscriber.unsubscribe(line.now)
        assert line.events() == []
        assert line.answer(200, ("Expires", "3600")) == []
        line.notify("pending;expires=3600", b"")
        *_, sent = line.events()
        assert isinstance(sent, Send)
        assert value(sent.request, "expires") == "0"

    def test_anew_leaves_the_old_dialog_and_asks_by_the_new_way(self) -> None:
        line = Line()
        line.stand()
        assert line.last is not None
        before = line.last.request.call_id
        line.subscriber.anew(line.now, "<sip:alice@192.0.2.8:5061>")
        (sent,) = line.events()
        assert isinstance(sent, Send)
        assert value(sent.request, "contact") == "<sip:alice@192.0.2.8:5061>"
        assert sent.request.call_id != before
        assert not sent.request.to.tag
        assert line.notify() == 200

    @pytest.mark.parametrize("code", [403, 603])
    def test_anew_does_not_ask_again_where_it_was_refused_for_good(self, code: int) -> None:
        line = Line()
        line.begin()
        line.answer(code)
        line.subscriber.anew(line.now, "<sip:alice@192.0.2.8:5061>")
        assert line.events() == []

    def test_anew_does_not_wake_what_is_not_wanted(self) -> None:
        line = Line()
        line.stand()
        line.subscriber.unsubscribe(line.now)
        line.events()
        line.subscriber.anew(line.now, "<sip:alice@192.0.2.8:5061>")
        assert line.events() == []

    @pytest.mark.parametrize("state", ["terminated;reason=timeout", "active;expires=0", "pending;expires=0"])
    def test_a_fetch_is_over_with_its_notify(self, state: str) -> None:
        """OPS-26; the last two are of RFC 3265's time."""
        line = Line(duration=0)
        assert value(line.begin(), "expires") == "0"
        line.answer(200, ("Expires", "0"))
        assert line.notify(state) == 200
        assert ended(line.events()).retry_at is None
        assert line.subscriber.is_done
        assert line.subscriber.next_timer() is None

    def test_an_empty_active_notify_is_told_as_one(self) -> None:
        """GW-14: who reads it takes it for closed; see ``client/seen.py``."""
        line = Line()
        line.begin()
        line.notify("active;expires=60", b"")
        (notified,) = line.events()
        assert isinstance(notified, Notified)
        assert not notified.request.body


def test_every_arrow_leads_from_a_state_to_another() -> None:
    assert {given for _, given in TRANSITIONS} == set(Input)
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert all(state is not after for (state, _), after in TRANSITIONS.items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("active;expires=599", SubscriptionStateValue("active", 599)),
        ("Terminated ; Reason=Rejected", SubscriptionStateValue("terminated", None, "rejected")),
        ('terminated;reason="giveup";retry-after=3', SubscriptionStateValue("terminated", None, "giveup", 3)),
        ("waiting", SubscriptionStateValue("waiting")),
    ],
)
def test_subscription_state_is_read(text: str, expected: SubscriptionStateValue) -> None:
    assert SubscriptionStateValue.parse(text) == expected


@pytest.mark.parametrize("text", ["", " ", "active;expires=4294967296", "active;expires", "active,pending"])
def test_a_broken_subscription_state_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        SubscriptionStateValue.parse(text)


@pytest.mark.parametrize("code", [403, 489, 603])
def test_these_codes_cancel_the_authorization(code: int) -> None:
    """GW-13, RFC 8048 section 5.2.2."""
    end = end_of_answer(code, is_refresh=False)
    assert end is not None
    assert end.is_cancelled


@pytest.mark.parametrize("code", [423, 481, 408, 500, 503])
def test_these_do_not(code: int) -> None:
    end = end_of_answer(code, is_refresh=False)
    assert end is not None
    assert not end.is_cancelled
    assert end.again is Again.LATER


def test_rejected_cancels_the_authorization_and_nothing_else_does() -> None:
    for cause in EndCause:
        assert end_of_notify(SubscriptionStateValue("terminated", None, cause.value)).is_cancelled is (
            cause is EndCause.REJECTED
        )
