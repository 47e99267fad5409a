"""A subscription under any order of answers, notifications and time: it lives with a timer, or it is over (SIP-20)."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriber import Ended, Notified, Pended, Send, State, Subscriber, Wish

CODES = (200, 202, 204, 302, 401, 403, 404, 408, 423, 480, 481, 489, 500, 503, 603)
STATES = (
    *(
        "active;expires=3600",
        "active",
        "active;expires=0",
        "pending;expires=60",
        "terminated",
        "odd",
        "",
        "active;expires=9",
    ),
    *("terminated;reason=deactivated", "terminated;reason=timeout", "terminated;reason=rejected"),
)
STEPS = st.one_of(
    st.tuples(st.just("answer"), st.sampled_from(CODES), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("fail"), st.integers(0, 3), st.booleans()),
    st.tuples(
        st.just("notify"), st.sampled_from(STATES), st.integers(0, 3), st.sampled_from(("n1", "n2")), st.integers(1, 9)
    ),
    st.tuples(st.just("time"), st.floats(0, 4000)),
    st.tuples(st.just("unsubscribe")),
    st.tuples(st.just("refresh")),
    st.tuples(st.just("anew")),
)


class Network:
    """Delivers what it likes: any answer to any request that was sent, any NOTIFY of any dialog, in any order."""

    def __init__(self, duration: int, *, is_lasting: bool) -> None:
        numbers = itertools.count(1)
        wish = Wish("sip:bob@b.test", "sip:alice@a.test", "<sip:alice@h>", duration=duration, is_lasting=is_lasting)
        self.subscriber = Subscriber(wish, random=lambda size: next(numbers).to_bytes(size, "big"))
        self.now = 0.0
        self.sent: list[Send] = []
        self.is_unsubscribed = False
        self.subscriber.subscribe(self.now)

    def step(self, step: tuple[object, ...]) -> None:
        match step:
            case ("answer", int(code), int(back), bool(has_credentials)):
                headers = [("Expires", "600"), ("Min-Expires", "900"), ("Contact", "<sip:pa@h2>")]
                self.subscriber.take_answer(
                    self.pick(back).id, SipResponse(code, "", headers), self.now, has_credentials=has_credentials
                )
            case ("fail", int(back), bool(is_timeout)):
                self.subscriber.failed(self.pick(back).id, self.now, is_timeout=is_timeout)
            case ("notify", str(state), int(back), str(tag), int(cseq)):
                code, _ = self.subscriber.take_notify(self.notify(state, back, tag, cseq), self.now)
                assert code in (200, 400, 481, 500)
            case ("time", float(seconds)):
                self.pass_time(self.now + seconds)
            case ("unsubscribe",):
                self.is_unsubscribed = True
                self.subscriber.unsubscribe(self.now)
            case ("anew",):
                self.subscriber.anew(self.now, "<sip:alice@h9>")
            case _:
                self.subscriber.refresh(self.now)
        self.check()

    def pick(self, back: int) -> Send:
        return self.sent[max(0, len(self.sent) - 1 - back)]

    def notify(self, state: str, back: int, tag: str, cseq: int) -> SipRequest:
        request = self.pick(back).request
        headers = [
            ("From", f"<sip:bob@b.test>;tag={tag}"),
            ("To", f"<sip:alice@a.test>;tag={request.from_.tag}"),
            ("Call-ID", request.call_id),
            ("CSeq", f"{cseq} NOTIFY"),
            ("Contact", "<sip:pa@h>"),
            ("Event", "presence"),
            ("Subscription-State", state),
        ]
        return SipRequest("NOTIFY", "sip:alice@h", headers, b"x")

    def pass_time(self, until: float, most: int = 1000) -> None:
        for _ in range(most):
            timer = self.subscriber.next_timer()
            if timer is None or timer > until:
                break
            self.now = max(self.now, timer)
            self.subscriber.handle_timer(self.now)
            self.check()
        else:
            raise AssertionError("time does not pass")
        self.now = max(self.now, until)

    def check(self) -> None:
        """What holds at every moment."""
        subscriber = self.subscriber
        while (event := subscriber.next_event()) is not None:
            if isinstance(event, Send):
                self.sent.append(event)
            elif isinstance(event, Ended):
                assert subscriber.end is event.end or subscriber.state is not State.TERMINATED
            else:
                assert not (isinstance(event, Notified | Pended) and subscriber.state is State.INIT)
        assert (subscriber.next_timer() is None) == subscriber.is_done
        timer = subscriber.next_timer()
        assert timer is None or timer <= self.now + 24 * 3600


@settings(deadline=None, max_examples=300)
@given(st.sampled_from((0, 60, 3600)), st.booleans(), st.lists(STEPS, max_size=25))
def test_it_is_live_with_a_timer_or_over(duration: int, is_lasting: bool, steps: list[tuple[object, ...]]) -> None:
    network = Network(duration, is_lasting=is_lasting)
    network.check()
    for step in steps:
        network.step(step)
    # From here on the network is dead: nothing of it stays alive.
    if not network.is_unsubscribed:
        network.step(("unsubscribe",))
    network.pass_time(network.now + 100_000)
    assert network.subscriber.is_done


@settings(deadline=None, max_examples=100)
@given(st.lists(STEPS, max_size=15))
def test_a_network_that_works_again_makes_it_active_again(steps: list[tuple[object, ...]]) -> None:
    """Unless the other side said that it shall not be tried, or nobody wants it any more."""
    network = Network(3600, is_lasting=True)
    network.check()
    for step in steps:
        network.step(step)
    subscriber = network.subscriber
    for _ in range(40):
        if is_settled(subscriber):
            break
        network.step(("answer", 200, 0, True))
        for tag in ("n1", "n2"):  # one of them is the dialog, if there is one
            network.step(("notify", "active;expires=3600", 0, tag, 10_000 + int(network.now)))
        if not is_settled(subscriber) and (timer := subscriber.next_timer()) is not None:
            network.pass_time(timer)
    assert is_settled(subscriber)


def is_settled(subscriber: Subscriber) -> bool:
    return subscriber.is_done or subscriber.state is State.ACTIVE
