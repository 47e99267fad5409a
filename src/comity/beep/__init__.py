"""BEEP, the Blocks Extensible Exchange Protocol (RFC 3080, over TCP by RFC 3081), without sockets and clocks.

Usable alone. One ``BeepSession`` is one end of one connection: give it octets and the time, take its events, write what it has
to send, call ``handle_timer`` when ``next_timer`` says so. After any call take all three::

    session = BeepSession("listener", BeepOptions(profiles=("http://example.org/echo",)), now=0.0)

    def pump(octets, now):
        session.receive_data(octets, now)
        while (event := session.next_event()) is not None:
            match event:
                case ChannelWanted(number=number):
                    session.accept_channel(number, "http://example.org/echo")
                case MessageReceived(channel=channel, msgno=msgno, payload=payload):
                    session.reply(channel, msgno, payload)
                case CloseWanted(channel=channel):
                    session.accept_close(channel)
                case SessionEnded(reason=reason):
                    print(reason)
        return session.data_to_send(now)

A payload is a MIME entity: headers, an empty line, octets; ``b"\\r\\n" + octets`` has the default headers.
The peer's mistakes never raise: they end the session with ``SessionEnded``. TLS (``tls_profile``) and sign-in
(``sasl_server``, ``sasl_client``) are small machines over the same verbs.
"""

from comity.beep.events import (
    AnswerReceived,
    AnswersEnded,
    ChannelClosed,
    ChannelRefused,
    ChannelStarted,
    ChannelWanted,
    CloseRefused,
    CloseWanted,
    ErrorReceived,
    Event,
    GreetingReceived,
    GreetingRefused,
    MessageReceived,
    ProfileOffer,
    ReplyReceived,
    SessionEnded,
)
from comity.beep.options import BeepOptions
from comity.beep.session import BeepSession

__all__ = [
    "AnswerReceived",
    "AnswersEnded",
    "BeepOptions",
    "BeepSession",
    "ChannelClosed",
    "ChannelRefused",
    "ChannelStarted",
    "ChannelWanted",
    "CloseRefused",
    "CloseWanted",
    "ErrorReceived",
    "Event",
    "GreetingReceived",
    "GreetingRefused",
    "MessageReceived",
    "ProfileOffer",
    "ReplyReceived",
    "SessionEnded",
]
