"""Lets whoever comes last drain a lane first, as two workers without a lease do (breaks I5)."""

from __future__ import annotations

from comity.cli import main
from comity.service.channel import Channel
from comity.service.pending import Pending


def push_in_front(self: Channel, pending: Pending) -> None:
    pending.offered[self] = True
    self._queue.insert(0, pending)
    self.pump()


if __name__ == "__main__":
    Channel.push = push_in_front  # type: ignore[method-assign]  # the sabotage
    main(prog_name="comity")
