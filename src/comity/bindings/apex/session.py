"""One APEX session: a BEEP session with the APEX profile on it, in both roles, without sockets and clocks.

Place on the path: steps 3 and 9. The listener is a relay, the initiator an application or a relay that calls. ``signing_in.py``
holds what comes before, TLS and SASL; nothing of that is ever begun by itself. What is poorly formed or not valid is answered
here (500, 501); what nobody sends by mistake, such as a document type, ends the session (P-30).

Verbs for a session that has ended do nothing; the caller may not have seen ``SessionEnded`` yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comity.beep import events as beep
from comity.beep.sasl_profile import EndPoint
from comity.bindings.apex import events
from comity.bindings.apex.elements import Attach, Bind, CoreElement, Error, Ok
from comity.bindings.apex.events import RIDE
from comity.bindings.apex.grammar import SILENTLY, WireError
from comity.bindings.apex.signing_in import Role, SessionOptions, SigningIn
from comity.bindings.apex.wire import PROFILE, read_message, read_ride, write_message, write_ride
from comity.errors import LocalProtocolError


class ApexSession(SigningIn):
    """One session with a peer.

    Args:
        role: "listener" awaited the connection, "initiator" opened it.
        options: what is offered and what a peer may cost.
        end_point: gives tls-server-end-point data once TLS is up, None before.
        random: gives that many random octets.
        now: monotonic seconds at which the connection was made.
    """

    def __init__(
        self, role: Role, options: SessionOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float
    ) -> None:
        super().__init__(role, options, end_point, random, now)
        self._channels: set[int] = set()
        """APEX channels that are open."""
        self._opening: dict[int, bool] = {}
        """APEX channels we asked for: whether something rode on the ``start``."""
        self._rides: set[int] = set()
        """Channels the peer asked for, whose first element waits for its answer."""
        self._unanswered: dict[tuple[int, int], int] = {}
        """Handle by channel and message number."""
        self._next_handle = 1
        self._closing: set[int] = set()
        """Channels that we asked to close, 0 for the session."""

    # --- verbs ---------------------------------------------------------------------------------------------------------

    @property
    def channels(self) -> frozenset[int]:
        """APEX channels that are open."""
        return frozenset(self._channels)

    def open(self, ride: Attach | Bind | None = None, server_name: str = "") -> int:
        """Ask for an APEX channel, with an attach or bind on the way if that is wanted; ``ChannelOpened`` or
        ``ChannelRefused`` answers. Returns the channel's number."""
        content = b"" if ride is None else write_ride(ride)
        number = self._beep.start_channel([beep.ProfileOffer(PROFILE, content)], server_name)
        self._opening[number] = ride is not None
        return number

    def send(self, channel: int, element: CoreElement | bytes) -> int:
        """Send an element, or the payload of one as it came, for which ``Answered`` comes back; returns its handle.

        What is sent on a channel, or in a session, that we are closing goes nowhere: it is not answered any more."""
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        payload = element if isinstance(element, bytes) else write_message(element)
        if not (self.is_ended or self._closing & {channel, 0}):
            self._unanswered[channel, self._beep.send_message(channel, payload)] = handle
        return handle

    def answer(self, channel: int, msgno: int, element: Ok | Error) -> None:
        """Answer ``ElementReceived``. The text of an error goes out in the peer's language if we have it (I18N-2)."""
        if self.is_ended:
            return
        if isinstance(element, Error) and element.text and not element.language:
            element = Error(element.code, *self._beep.localized(element.text))
        if msgno == RIDE:
            if channel not in self._rides:
                raise LocalProtocolError("nothing rode on this channel's start")
            self._rides.discard(channel)
            self._channels.add(channel)
            self._beep.accept_channel(channel, PROFILE, write_ride(element))
        elif isinstance(element, Ok):
            self._beep.reply(channel, msgno, write_message(element))
        else:
            self._beep.reply_error(channel, msgno, write_message(element))

    def close_channel(self, channel: int) -> None:
        """Ask to close an APEX channel; ``ChannelClosed`` comes when the peer agrees."""
        self._closing.add(channel)
        self._beep.close_channel(channel)

    def release(self) -> None:
        """End the session in order, once everything is answered; ``SessionEnded`` or ``ReleaseRefused`` follows."""
        self._closing.add(0)
        self._beep.close_channel(0)

    def close(self, reason: str) -> None:
        """End the session without a word."""
        self._beep.close(reason)
        self._take_events()

    def hold(self) -> None:
        """Take no more from the peer than its windows allow already, until ``resume`` (backpressure)."""
        for channel in self._channels:
            self._beep.hold(channel)

    def resume(self) -> None:
        """Widen the windows again."""
        for channel in self._channels:
            self._beep.resume(channel)

    def waiting(self, channel: int) -> int:
        """Octets of ours not handed out yet."""
        return self._beep.waiting(channel)

    @property
    def is_busy(self) -> bool:
        """True while an element of ours is unanswered."""
        return bool(self._unanswered)

    # --- what the peer does --------------------------------------------------------------------------------------------

    def _take(self, event: beep.Event) -> None:
        match event:
            case beep.MessageReceived(channel, msgno, payload):
                self._take_message(channel, msgno, payload)
            case beep.ReplyReceived(channel, msgno, payload) | beep.ErrorReceived(channel, msgno, payload):
                self._take_answer(channel, msgno, payload, isinstance(event, beep.ReplyReceived))
            case beep.ChannelWanted(number, _, profiles):
                self._take_start(number, profiles)
            case beep.ChannelStarted(number, _, content):
                self._take_started(number, content)
            case beep.ChannelRefused(number, code, text):
                self._opening.pop(number, None)
                self._events.append(events.ChannelRefused(number, code, text))
            case beep.CloseWanted(channel):
                self._take_close(channel)
            case beep.CloseRefused(channel, code, text):
                self._closing.discard(channel)
                if not channel:
                    self._events.append(events.ReleaseRefused(code, text))
            case beep.ChannelClosed(channel) if channel in self._channels:
                self._channels.discard(channel)
                self._closing.discard(channel)
                self._events.append(events.ChannelClosed(channel))
            case beep.AnswerReceived() | beep.AnswersEnded():
                self._beep.close("APEX has no answers of several parts")

    def _take_message(self, channel: int, msgno: int, payload: bytes) -> None:
        try:
            element = read_message(payload)
            if isinstance(element, Ok | Error):
                raise WireError("a reply where a request belongs")
        except WireError as error:
            if error.code == SILENTLY:
                self._beep.close(error.reason)
            else:
                self.answer(channel, msgno, Error(error.code, error.reason))
            return
        self._events.append(events.ElementReceived(channel, msgno, element, payload))

    def _take_answer(self, channel: int, msgno: int, payload: bytes, is_positive: bool) -> None:
        handle = self._unanswered.pop((channel, msgno))
        try:
            element = read_message(payload)
        except WireError as error:
            self._beep.close(f"an unreadable reply: {error.reason}")
            return
        if isinstance(element, Ok if is_positive else Error):
            self._events.append(events.Answered(handle, element))
        else:
            self._beep.close("a reply of another kind than ok and error")

    def _take_start(self, number: int, profiles: Sequence[beep.ProfileOffer]) -> None:
        offer = next((offer for offer in profiles if offer.uri == PROFILE), None)
        if offer is not None and self._role == "listener":
            self._take_apex(number, offer.content)
            return
        self._beep.refuse_channel(number, 550, "all requested profiles are unsupported")

    def _take_apex(self, number: int, ride: bytes) -> None:
        if not ride.strip():
            self._channels.add(number)
            self._beep.accept_channel(number, PROFILE)
            return
        self._rides.add(number)
        try:
            element = read_ride(ride)
            if not isinstance(element, Attach | Bind):
                raise WireError("only attach and bind ride on start")
        except WireError as error:
            if error.code == SILENTLY:
                self._beep.close(error.reason)
            else:
                self.answer(number, RIDE, Error(error.code, error.reason))
            return
        self._events.append(events.ElementReceived(number, RIDE, element, write_message(element)))

    def _take_started(self, number: int, content: bytes) -> None:
        had_ride = self._opening.pop(number)
        answer: Ok | Error | None = None
        if had_ride and content.strip():
            try:
                element = read_ride(content)
            except WireError as error:
                self._beep.close(f"an unreadable reply: {error.reason}")
                return
            if not isinstance(element, Ok | Error):
                self._beep.close("a reply of another kind than ok and error")
                return
            answer = element
        self._channels.add(number)
        self._events.append(events.ChannelOpened(number, answer))

    def _take_close(self, channel: int) -> None:
        """Agree, at once or when everything is answered; to a release only if nothing is open any more (P-19)."""
        if channel == 0 and (self._unanswered or self._rides):
            self._beep.refuse_close(0, 550, "still working")
        else:
            self._beep.accept_close(channel)
