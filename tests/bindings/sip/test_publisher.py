"""The publisher's side of a publication (RFC 3903 sections 4 and 5; SIP-30, SIP-33)."""

from __future__ import annotations

import itertools

import pytest

from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.publisher import Event, Published, Publisher, PublishFailed, Removed
from comity.bindings.sip.subscriber import Send

PIDF = "application/pidf+xml"


class Line:
    """A publisher, and a state agent played by hand."""

    def __init__(self, **options: object) -> None:
        numbers = itertools.count(1)
        self.publisher = Publisher(
            "sip:bob@b.test",
            random=lambda size: next(numbers).to_bytes(size, "big"),
            **options,  # type: ignore[arg-type]  # keywords of a test
        )
        self.now = 500.0
        self.id = 0

    def events(self) -> list[Event]:
        happened: list[Event] = []
        while (event := self.publisher.next_event()) is not None:
            happened.append(event)
            self.id = event.id if isinstance(event, Send) else self.id
        return happened

    def sent(self) -> SipRequest:
        (event,) = self.events()
        assert isinstance(event, Send)
        return event.request

    def publish(self, body: bytes) -> SipRequest:
        self.publisher.publish(PIDF, body, self.now)
        return self.sent()

    def answer(self, code: int, etag: str = "", expires: int | None = None, *more: tuple[str, str]) -> list[Event]:
        headers = [("SIP-ETag", etag)] if etag else []
        headers += [("Expires", str(expires))] if expires is not None else []
        self.publisher.take_answer(self.id, SipResponse(code, "Phrase", [*headers, *more]), self.now)
        return self.events()

    def pass_time(self, seconds: float) -> list[Event]:
        until = self.now + seconds
        while (timer := self.publisher.next_timer()) is not None and timer <= until:
            self.now = max(self.now, timer)
            self.publisher.handle_timer(self.now)
        self.now = until
        return self.events()


def shape(request: SipRequest) -> tuple[bool, str | None, bool]:
    """Body?, tag, is the lease over 0? The columns of table 1."""
    return bool(request.body), request.value("sip-if-match"), request.value("expires") != "0"


def test_the_four_operations_of_table_1() -> None:
    """SIP-30."""
    line = Line()
    initial = line.publish(b"one")
    assert shape(initial) == (True, None, True)
    assert (initial.uri_text, initial.value("event"), initial.content_type) == ("sip:bob@b.test", "presence", PIDF)
    assert line.answer(200, "a", 1800) == [Published("a", 1800)]
    (refresh,) = line.pass_time(1740)
    assert isinstance(refresh, Send)
    assert shape(refresh.request) == (False, "a", True)
    assert line.answer(200, "b", 1800) == [Published("b", 1800)]
    assert shape(line.publish(b"two")) == (True, "b", True)
    assert line.answer(200, "c", 1800) == [Published("c", 1800)]
    line.publisher.remove(line.now)
    assert shape(line.sent()) == (False, "c", False)
    assert line.answer(200, "d", 0) == [Removed()]
    assert line.publisher.next_timer() is None


def test_after_412_the_tag_is_dropped_and_the_same_state_is_published_afresh() -> None:
    """SIP-33: "the EPA SHOULD perform an initial publication"."""
    line = Line()
    line.publish(b"one")
    line.answer(200, "a", 1800)
    (refresh,) = line.pass_time(1740)
    assert isinstance(refresh, Send)
    (afresh,) = line.answer(412)
    assert isinstance(afresh, Send)
    assert (afresh.request.body, afresh.request.value("sip-if-match")) == (b"one", None)
    assert line.answer(200, "n", 1800) == [Published("n", 1800)]


def test_412_without_a_tag_is_no_reason_to_try_the_same_again_at_once() -> None:
    line = Line()
    line.publish(b"one")
    (failed,) = line.answer(412)
    assert isinstance(failed, PublishFailed)
    assert failed.retry_at == line.now + 5


def test_412_to_a_removal_means_that_it_is_gone() -> None:
    line = Line()
    line.publish(b"one")
    line.answer(200, "a", 1800)
    line.publisher.remove(line.now)
    line.events()
    assert line.answer(412) == [Removed()]


def test_nothing_is_sent_while_a_request_is_under_way_and_the_last_state_wins() -> None:
    """RFC 3903 section 4: "EPAs MUST NOT send a new PUBLISH request … until they have received a final response"."""
    line = Line()
    line.publish(b"one")
    line.publisher.publish(PIDF, b"two", line.now)
    line.publisher.publish(PIDF, b"three", line.now)
    assert line.events() == []
    (sent,) = line.answer(200, "a", 1800)
    assert isinstance(sent, Send)
    assert (sent.request.body, sent.request.value("sip-if-match")) == (b"three", "a")
    assert line.answer(200, "b", 1800) == [Published("b", 1800)]


def test_a_removal_that_was_wanted_meanwhile_follows() -> None:
    line = Line()
    line.publish(b"one")
    line.publisher.remove(line.now)
    (sent,) = line.answer(200, "a", 1800)
    assert isinstance(sent, Send)
    assert shape(sent.request) == (False, "a", False)


def test_the_same_state_again_needs_no_request() -> None:
    line = Line()
    line.publish(b"one")
    line.answer(200, "a", 1800)
    line.publisher.publish(PIDF, b"one", line.now)
    assert line.events() == []


def test_423_is_asked_again_with_the_least_that_is_taken() -> None:
    line = Line(duration=60)
    line.publish(b"one")
    (sent,) = line.answer(423, "", None, ("Min-Expires", "300"))
    assert isinstance(sent, Send)
    assert (sent.request.body, sent.request.value("expires")) == (b"one", "300")


def test_a_challenge_is_answered_with_a_higher_cseq() -> None:
    line = Line()
    first = line.publish(b"one")
    line.publisher.take_answer(line.id, SipResponse(401, "", []), line.now, has_credentials=True)
    again = line.sent()
    assert (again.body, again.call_id, again.cseq.number) == (b"one", first.call_id, first.cseq.number + 1)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 415, 489, 501, 603])
def test_what_the_next_one_would_get_too_is_final(code: int) -> None:
    line = Line()
    line.publish(b"one")
    assert line.answer(code) == [PublishFailed(code, "Phrase", None)]
    assert line.pass_time(10**6) == []


@pytest.mark.parametrize("code", [408, 480, 500, 503])
def test_what_may_pass_is_tried_again(code: int) -> None:
    line = Line()
    line.publish(b"one")
    assert line.answer(code) == [PublishFailed(code, "Phrase", line.now + 5)]
    (sent,) = line.pass_time(5)
    assert isinstance(sent, Send)
    assert sent.request.body == b"one"
    assert line.answer(code, "", None, ("Retry-After", "90")) == [PublishFailed(code, "Phrase", line.now + 90)]


def test_a_refresh_that_failed_is_a_refresh_again_and_a_first_one_after_the_lease() -> None:
    line = Line()
    line.publish(b"one")
    line.answer(200, "a", 300)
    line.pass_time(240)
    line.answer(503)
    (again,) = line.pass_time(6)
    assert isinstance(again, Send)
    assert shape(again.request) == (False, "a", True)
    line.answer(503, "", None, ("Retry-After", "120"))
    (afresh,) = line.pass_time(130)
    assert isinstance(afresh, Send)
    assert shape(afresh.request) == (True, None, True)


def test_no_answer_is_tried_again() -> None:
    line = Line()
    line.publish(b"one")
    line.publisher.failed(line.id, line.now)
    (failed,) = line.events()
    assert isinstance(failed, PublishFailed)
    assert failed.retry_at is not None


def test_a_check_renews_at_once_and_publishes_afresh_what_was_forgotten() -> None:
    """After a lost connection: did the server lose it too?"""
    line = Line()
    line.publish(b"one")
    line.answer(200, "a", 1800)
    line.publisher.check(line.now)
    assert shape(line.sent()) == (False, "a", True)
    (afresh,) = line.answer(412)
    assert isinstance(afresh, Send)
    assert shape(afresh.request) == (True, None, True)
    line.answer(503)
    line.publisher.check(line.now)
    assert shape(line.sent()) == (True, None, True)


def test_nothing_is_checked_that_is_left_behind() -> None:
    line = Line(is_lasting=False)
    line.publish(b"one")
    line.answer(200, "a", 1800)
    line.publisher.check(line.now)
    assert line.events() == []


def test_a_lease_longer_than_asked_is_not_believed() -> None:
    line = Line(duration=300)
    line.publish(b"one")
    assert line.answer(200, "a", 9999) == [Published("a", 300)]


def test_a_publication_left_behind_is_not_renewed() -> None:
    line = Line(duration=300, is_lasting=False)
    line.publish(b"one")
    assert line.answer(200, "a", 300) == [Published("a", 300)]
    assert line.pass_time(10**5) == []


@pytest.mark.parametrize("etag", ["", "a b", "x" * 300])
def test_a_success_without_a_usable_tag_is_followed_by_a_first_publication(etag: str) -> None:
    line = Line()
    line.publish(b"one")
    line.answer(200, etag, 300)
    (sent,) = line.pass_time(240)
    assert isinstance(sent, Send)
    assert shape(sent.request) == (True, None, True)


def test_a_server_that_grants_no_time_is_not_asked_without_a_pause() -> None:
    line = Line()
    line.publish(b"away")
    line.answer(200, "a1", 0)
    requests = 0
    for _ in range(100):
        sent = [event for event in line.pass_time(0.1) if isinstance(event, Send)]
        requests += len(sent)
        if sent:
            line.answer(200, "a1", 0)
    assert 5 <= requests <= 10
