"""What a live SIP subscription costs a running server: ``python -m tests.load.dialogs [WATCHERS [EACH]]``.

The server is ``comity serve`` with its store on disk; watchers are phones on UDP, each with many dialogs, as the limits allow. Fixed costs
are paid by one of them beforehand; what is counted is resident memory when the transactions of the rest are over (Timer J of
RFC 3261 keeps each for 32 s), but for those of one phone, which are as many as the first had at the beginning.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.catalogue.raw import sip_status
from tests.catalogue.sip_agent import Agent, header
from tests.load.measure import add_accounts, resident
from tests.paths.presence_people import House

TARGETS = 100
QUIET_SECONDS = 45.0
LIMITS = "udp_requests = 100000\nconnections_per_address = 1000"


class Watcher:
    """A phone with many dialogs."""

    def __init__(self, house: House, name: str) -> None:
        self.agent = Agent(house, "udp", name)  # type: ignore[arg-type]  # a House is what it needs of a Target

    def watch(self, target: str) -> None:
        """Subscribe for an hour; back when the first NOTIFY was answered."""
        token = secrets.token_hex(8)
        lines = ("Event: presence", "Expires: 3600", "Accept: application/pidf+xml", f"Contact: {self.agent.contact}")
        request = self.agent.build("SUBSCRIBE", f"sip:{target}@a.test", *lines, call_id=f"Call-ID: {token}")
        self.agent.send(self.agent.sign(request))
        is_answered = is_told = False
        while not (is_answered and is_told):
            message = self.agent.hear()
            is_mine = header(message, "Call-ID", "i") == token
            if message.startswith(b"NOTIFY "):
                self.agent.reply(message)
                is_told |= is_mine
            elif is_mine:
                assert sip_status(message) == 200, message
                is_answered = True


def measure(directory: Path, watchers: int = 20, each: int = 500, quiet: float = QUIET_SECONDS) -> dict[str, float]:
    """Octets for each of ``watchers * each`` live subscriptions, and how long one took to make."""
    house = House(directory, LIMITS, 'presence_default = "everyone"')
    names = [f"watcher{number}" for number in range(watchers + 1)]
    targets = [f"target{number}" for number in range(TARGETS)]
    add_accounts(house, [*names, *targets])
    with house, ExitStack() as stack:
        house.start()
        phones = [Watcher(house, name) for name in names]
        for phone in phones:
            stack.callback(phone.agent.close)
        fill(phones[:1], targets, each)
        before = resident(house)
        begun = time.monotonic()
        fill(phones[1:-1], targets, each)
        time.sleep(quiet)  # Timer J of a real server: nothing tells that its answered transactions are gone
        fill(phones[-1:], targets, each)
        taken = time.monotonic() - begun - quiet
        count = watchers * each
        return {
            "subscriptions": count,
            "octets_each": (resident(house) - before) / count,
            "milliseconds_each": taken / count * 1000,
        }


def fill(phones: Sequence[Watcher], targets: Sequence[str], each: int) -> None:
    """Every phone watches so much."""
    for phone in phones:
        for number in range(each):
            phone.watch(targets[number % len(targets)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(Path(place), *map(int, sys.argv[1:]))))
