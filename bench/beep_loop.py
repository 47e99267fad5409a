#!/usr/bin/env python3
"""What the BEEP layer alone costs: two sessions wired together in memory. Usage: PYTHONPATH=src bench/beep_loop.py

Microseconds of CPU per message and direction: a MSG of 1 KiB out and in, and its RPY, each counted at both ends.
"""

from __future__ import annotations

import time

from comity.beep import BeepOptions, BeepSession, ChannelWanted, Event, MessageReceived, ProfileOffer

URI = "http://iana.org/beep/APEX"
HEAD = b"Content-Type: application/beep+xml\r\n\r\n"


class Loop:
    """One channel between two sessions; the listener answers everything with a short reply."""

    def __init__(self, **options: int) -> None:
        self.one = BeepSession("initiator", BeepOptions(**options), 0.0)  # type: ignore[arg-type]  # sizes only
        self.two = BeepSession("listener", BeepOptions(profiles=(URI,)), 0.0)
        self.turn()
        self.channel = self.one.start_channel([ProfileOffer(URI)])
        self.turn()
        self.turn()

    def turn(self) -> int:
        """Both sides say what they have; how many answers came to the initiator."""
        for event in self.move(self.one, self.two):
            if isinstance(event, MessageReceived):
                self.two.reply(event.channel, event.msgno, HEAD + b"<ok />")
            elif isinstance(event, ChannelWanted):
                self.two.accept_channel(event.number, URI)
        return len(self.move(self.two, self.one))

    @staticmethod
    def move(source: BeepSession, target: BeepSession) -> list[Event]:
        octets = b"".join(source.data_to_send(0.0))
        if octets:
            target.receive_data(octets, 0.0)
        source.next_timer()
        target.next_timer()
        return list(iter(target.next_event, None))

    def run(self, count: int, batch: int, size: int) -> float:
        """CPU seconds for ``count`` messages of ``size`` octets, ``batch`` at a time."""
        payload = HEAD + b"x" * (size - len(HEAD))
        begun = time.process_time()
        for _ in range(count // batch):
            for _ in range(batch):
                self.one.send_message(self.channel, payload)
            answered = 0
            while answered < batch:
                answered += self.turn()
        return time.process_time() - begun


for batch in (1, 8, 32):
    loop = Loop()
    loop.run(1000, batch, 1024)
    print(f"1 KiB, {batch:2} at a time: {loop.run(20_000, batch, 1024) / 40_000 * 1e6:5.1f} us a message and direction")
for frame in (1024, 4096, 16_384, 65_536):
    loop = Loop(frame_sent=frame)
    loop.run(2, 1, 1 << 20)
    print(f"1 MiB in frames of {frame:6}: {loop.run(40, 1, 1 << 20) / 40 * 1e3:5.2f} ms, both ends")
