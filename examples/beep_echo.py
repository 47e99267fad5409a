"""Two BEEP peers in one program: a profile of one's own (it says everything back), without sockets and clocks.

What travels is RFC 3080's frames, shown as they go. With real connections, the octets of `data_to_send` are written to a socket
and what is read goes to `receive_data`; nothing else changes.
"""

from comity.beep import (
    BeepOptions,
    BeepSession,
    ChannelStarted,
    ChannelWanted,
    CloseWanted,
    GreetingReceived,
    MessageReceived,
    ProfileOffer,
    ReplyReceived,
)

ECHO = "http://example.org/profiles/echo"
SENT = ["Hello", "Grüß Gott", "END\r\n"]

client = BeepSession("initiator", BeepOptions(), now=0.0)
server = BeepSession("listener", BeepOptions(profiles=(ECHO,)), now=0.0)
heard: list[str] = []


def react(session: BeepSession, event: object) -> None:
    """What each side does about what it hears of the other."""
    match event:
        case GreetingReceived(profiles=(uri,)):
            session.start_channel([ProfileOffer(uri)])
        case ChannelWanted(number=number):
            session.accept_channel(number, ECHO)
        case ChannelStarted(number=number):
            for text in SENT:
                session.send_message(number, b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode())
        case MessageReceived(channel=channel, msgno=msgno, payload=payload):
            session.reply(channel, msgno, payload)
        case ReplyReceived(payload=payload):
            heard.append(payload.partition(b"\r\n\r\n")[2].decode())
            if len(heard) == len(SENT):
                session.close_channel(0)
        case CloseWanted(channel=channel):
            session.accept_close(channel)


while not (client.is_ended and server.is_ended):
    for name, session, other in (("C", client, server), ("S", server, client)):
        for octets in session.data_to_send(now=0.0):
            print(f"{name}: {octets.decode()!r}" if octets else f"{name} closes the connection")
            other.receive_data(octets, now=0.0)
        while (event := other.next_event()) is not None:
            react(other, event)

assert heard == SENT
