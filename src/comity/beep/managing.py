"""Channel 0 of a BEEP session: greeting, start, close and release, asked by us and by the peer (RFC 3080 sections 2.3 and 2.4).

Place on the path: step 3, between ``table.py`` and ``session.py``. ``management.py`` reads and writes the elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from comity.beep import management as m
from comity.beep.channel import Channel, Outgoing, Whole
from comity.beep.events import (
    ChannelRefused,
    ChannelStarted,
    ChannelWanted,
    CloseRefused,
    CloseWanted,
    GreetingReceived,
    GreetingRefused,
    ProfileOffer,
    SessionEnded,
)
from comity.beep.frames import ERR, MSG, RPY
from comity.beep.table import ChannelTable
from comity.errors import LocalProtocolError, RemoteProtocolError


class ManagedChannels(ChannelTable):
    """The verbs and events of channel 0."""

    # --- verbs --------------------------------------------------------------------------------------------------------

    def start_channel(self, profiles: Sequence[ProfileOffer], server_name: str = "", *, is_last: bool = False) -> int:
        """Ask for a channel; returns its number. ``ChannelStarted`` or ``ChannelRefused`` answers.

        Args:
            profiles: what it may be, best first, each with its initialization message.
            server_name: who the peer shall be; counts in the first channel of a session.
            is_last: send nothing behind it, not even windows, until it is answered (RFC 3080 section 3.1.3.1).
        """
        if self.is_ended:
            return 0
        if self._management.is_closing:
            raise LocalProtocolError("the session is being released")
        if len(self._channels) + len(self._asked) > self.options.channels:
            raise LocalProtocolError("too many channels")
        number = self._next_number
        start = m.Start(number, tuple(profiles), server_name)
        then = self._fall_silent if is_last else None
        msgno = self._management.ask(m.write_management(start), then)
        self._next_number += 2
        self._asked[msgno] = start
        self._ring_for(self._management)
        return number

    def accept_channel(self, number: int, uri: str, content: bytes = b"") -> None:
        """Answer ``ChannelWanted``: it shall be ``uri``; ``content`` is our initialization message."""
        if self.is_ended:
            return
        msgno, start = self._take_wanted(number)
        if uri not in [offer.uri for offer in start.profiles]:
            raise LocalProtocolError("a profile that was not offered")
        channel = Channel(number, uri, self.options)
        channel.is_announced = False
        self._channels[number] = channel
        if number in self._closed:
            self._closed.remove(number)
        self.server_name = self.server_name or start.server_name
        payload = m.write_management(m.Profile(ProfileOffer(uri, content)))
        self._reply(self._management, msgno, RPY, payload, lambda: self._announce(channel))

    def refuse_channel(self, number: int, code: int, text: str = "") -> None:
        """Answer ``ChannelWanted`` with an error; the text goes out in the peer's language if we have it."""
        if not self.is_ended:
            self._refuse(self._take_wanted(number)[0], code, text)

    def close_channel(self, number: int, code: int = 200, text: str = "") -> None:
        """Ask to close a channel, or to release the session (0).

        The request goes out when our messages there are answered, for 0 also what we owe; no new ones may be sent."""
        if self.is_ended:
            return
        channel = self._open(number)
        if channel.is_closing:
            return
        if number in self._closing:  # both sides want it
            if number not in self._agreed:
                self.accept_close(number)
            return
        channel.is_closing = True
        self._leaving[number] = m.Close(number, code, *self._diagnostic(text))
        self._settle()

    def accept_close(self, number: int) -> None:
        """Answer ``CloseWanted``: agreed, as soon as everything is answered in both directions."""
        if self.is_ended:
            return
        if number not in self._closing or number in self._agreed:
            raise LocalProtocolError("the peer did not ask to close this")
        self._agreed.add(number)
        self._settle()

    def refuse_close(self, number: int, code: int, text: str = "") -> None:
        """Answer ``CloseWanted`` with an error."""
        if self.is_ended:
            return
        if number not in self._closing or number in self._agreed:
            raise LocalProtocolError("the peer did not ask to close this")
        self._refuse(self._closing.pop(number), code, text)

    # --- what the peer says -------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        options = self.options
        if options.unavailable is not None:
            code, text = options.unavailable
            keyword, payload = ERR, m.write_management(m.BeepError(code, text, "en" if text else ""))
        else:
            keyword, payload = RPY, m.write_management(m.Greeting(options.profiles, options.features, options.localize))
        self._management.queue.append(Outgoing(keyword, 0, payload))
        self._ring_for(self._management)

    def _manage(self, whole: Whole) -> None:
        keyword, msgno, payload = whole
        try:
            value = m.read_management(payload)
        except RemoteProtocolError as error:
            if keyword != MSG or error.hint == "restricted-xml":
                raise
            self._refuse(msgno, int(error.hint), error.reason)
            return
        if self._greeting_due is not None:
            self._take_greeting(keyword, value)
        elif keyword == MSG:
            self._take_request(msgno, value)
        else:
            self._take_answer(keyword, msgno, value)

    def _take_greeting(self, keyword: bytes, value: m.Management) -> None:
        if keyword == ERR and isinstance(value, m.BeepError):
            self._events.append(GreetingRefused(value.code, value.text))
            self._end(SessionEnded(f"the peer is not available ({value.code})", True), is_leaving=True)
        elif keyword == RPY and isinstance(value, m.Greeting):
            self._greeting_due = None
            self._greeting = value
            if self.options.unavailable is not None:
                self._end(SessionEnded("we are not available", False), is_leaving=True)
            else:
                self._events.append(GreetingReceived(value.profiles, value.features, value.localize))
        else:
            raise RemoteProtocolError("something else came where the greeting belongs")

    def _take_request(self, msgno: int, value: m.Management) -> None:
        if isinstance(value, m.Start):
            self._take_start(msgno, value)
        elif isinstance(value, m.Close):
            self._take_close(msgno, value)
        else:
            self._refuse(msgno, 501, "the element is not expected here")

    def _take_start(self, msgno: int, start: m.Start) -> None:
        number = start.number
        if self.role == "listener" and number % 2 == 0:
            self._refuse(msgno, 501, "number attribute in <start> element must be odd-valued")
        elif self.role == "initiator" and number % 2:
            self._refuse(msgno, 501, "number attribute in <start> element must be even-valued")
        elif number in self._channels or number in self._wanted:
            self._refuse(msgno, 550, "the channel exists already")
        elif len(self._channels) + len(self._wanted) > self.options.channels:
            self._refuse(msgno, 450, "too many channels")
        else:
            self._wanted[number] = (msgno, start)
            self._events.append(ChannelWanted(number, start.server_name, start.profiles))

    def _take_close(self, msgno: int, close: m.Close) -> None:
        number = close.number
        channel = self._channels.get(number)
        if channel is None or not channel.is_announced:
            self._refuse(msgno, 550, "there is no such channel")
        elif number in self._closing or (not number and self.owes) or (number and channel.is_unfinished):
            self._refuse(msgno, 550, "still working")
        else:
            self._closing[number] = msgno
            if channel.is_closing:
                self._agreed.add(number)  # both sides want it
                self._settle()
            else:
                self._events.append(CloseWanted(number, close.code))

    def _take_answer(self, keyword: bytes, msgno: int, value: m.Management) -> None:
        self._is_silent = False
        asked = self._asked.pop(msgno, None)
        is_error = keyword == ERR and isinstance(value, m.BeepError)
        if isinstance(asked, m.Start) and is_error:
            assert isinstance(value, m.BeepError)
            self._events.append(ChannelRefused(asked.number, value.code, value.text))
        elif isinstance(asked, m.Start) and keyword == RPY and isinstance(value, m.Profile):
            self._take_profile(asked, value.chosen)
        elif isinstance(asked, m.Close) and is_error:
            assert isinstance(value, m.BeepError)
            self._take_close_refusal(asked.number, value)
        elif isinstance(asked, m.Close) and keyword == RPY and isinstance(value, m.Ok):
            self._take_close_agreement(asked.number)
        else:
            raise RemoteProtocolError("a reply on channel 0 that does not belong to its message")

    def _take_profile(self, start: m.Start, chosen: ProfileOffer) -> None:
        if chosen.uri not in [offer.uri for offer in start.profiles]:
            raise RemoteProtocolError("the peer chose a profile that was not offered")
        channel = self._channels[start.number] = Channel(start.number, chosen.uri, self.options)
        self._consider_window(channel)
        self._events.append(ChannelStarted(start.number, chosen.uri, chosen.content))

    def _take_close_refusal(self, number: int, error: m.BeepError) -> None:
        if number in self._channels:
            self._channels[number].is_closing = False
            self._events.append(CloseRefused(number, error.code, error.text))

    def _take_close_agreement(self, number: int) -> None:
        if not number:
            self._end(SessionEnded("", False), is_leaving=True)
        elif number in self._channels:
            if self._channels[number].owed:
                raise RemoteProtocolError("the peer agreed to close a channel where it waits for answers")
            self._remove(number)

    # --- small parts --------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Go on with the closes that waited for answers."""
        for number, close in list(self._leaving.items()):
            waits = self._channels.values() if not number else [self._channels[number]]
            if all(self._may_leave(channel, number) for channel in waits):
                del self._leaving[number]
                self._asked[self._management.ask(m.write_management(close))] = close
                self._ring_for(self._management)
        for number in list(self._agreed):
            if number and not self._channels[number].is_quiet:
                continue
            if not number and not self._is_all_quiet():
                continue
            self._agreed.discard(number)
            self._leaving.pop(number, None)
            self._channels[number].is_over = True
            msgno = self._closing.pop(number)
            self._reply(self._management, msgno, RPY, m.write_management(m.Ok()), partial(self._agree, number))

    def _may_leave(self, channel: Channel, asked_for: int) -> bool:
        """Our messages are answered; to release the session, the peer's too ("orderly end keeps pending replies")."""
        if channel.number == 0:
            return asked_for == 0 and not channel.asked
        return not channel.asked and (asked_for != 0 or channel.is_quiet)

    def _is_all_quiet(self) -> bool:
        for number, channel in self._channels.items():
            if number and not channel.is_quiet:
                return False
        return len(self._management.owed) <= 1 and not [a for a in self._asked.values() if isinstance(a, m.Start)]

    def _agree(self, number: int) -> None:
        if not number:
            self._end(SessionEnded("", False), is_leaving=True)
        elif number in self._channels:  # unless the peer agreed to our own request meanwhile
            self._remove(number)

    def _fall_silent(self) -> None:
        self._is_silent = True

    def _take_wanted(self, number: int) -> tuple[int, m.Start]:
        if number not in self._wanted:
            raise LocalProtocolError("the peer did not ask for this channel")
        return self._wanted.pop(number)
