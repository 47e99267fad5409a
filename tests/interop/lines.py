"""Drive a client that is a library: its module runs as a program of its own, and lines of JSON go in and out.

So its event loop, its threads and its warnings stay out of the tests, and it can be killed like any other. In go
``{"do": "text" | "typing", "to", "text"}``, ``{"do": "tell", "state", "note"}`` and ``{"do": "watch" | "grant" | "refuse" |
"block", "to"}``; out come ``{"state"}``, ``{"from", "text"}``, ``{"typing"}``, ``{"receipt"}``, ``{"refused"}``, ``{"asked"}``
and ``{"seen", "as", "note"}``.
"""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, cast

from tests.interop.clients import Notice, Received, Seen, State, StockClient, bare_address, lines_as_lf, listed
from tests.interop.program import Program

_ROOT = Path(__file__).resolve().parents[2]

Settings = dict[str, str | int | bool]


class LibraryClient(StockClient):
    """A client made of a library and the few lines of the module ``runs``."""

    runs: ClassVar[str]
    """Module that signs in and speaks the lines; its argument is the settings as JSON."""

    @abstractmethod
    def settings(self) -> Settings:
        """What the module needs to sign in; makes its files."""

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-W", "ignore", "-m", self.runs, json.dumps(self.settings())]
        self._program = Program(self.name, argv, self.home, terminal=False, env={"PYTHONPATH": str(_ROOT)})
        self._program.wait_until(lambda: "started" in self._values("state"), "its sign-in")

    def _lines(self) -> list[dict[str, str]]:
        complete = self._running.output.rpartition("\n")[0]
        return [json.loads(line) for line in complete.split("\n") if line.startswith("{")]

    def _values(self, key: str) -> list[str]:
        return [line[key] for line in self._lines() if key in line]

    def _order(self, done: str, **order: str) -> None:
        """Give an order and wait until ``done`` is said of it."""
        before = self._values("state").count(done)
        self._running.type(json.dumps(order) + "\n")
        self._running.wait_until(lambda: self._values("state").count(done) > before, f"{done} of {order}")

    def send(self, to: str, text: str) -> None:
        self._order("sent", do="text", to=to, text=text)

    def tell_typing(self, to: str) -> None:
        self._order("typing told", do="typing", to=to)

    def tell(self, state: State, note: str = "") -> None:
        self._order("told", do="tell", state=state, note=note)

    def watch(self, who: str) -> None:
        self._order("watching", do="watch", to=who)

    def wait_asked(self, who: str) -> None:
        self._running.wait_until(lambda: who in self._values("asked"), f"the request of {who}")

    def answer(self, who: str, granted: bool) -> None:
        self._order("answered", do="grant" if granted else "refuse", to=who)

    def block(self, who: str) -> None:
        self._order("blocked", do="block", to=who)

    def seen(self, who: str) -> Seen:
        """The last line about ``who``."""
        found = [line for line in self._lines() if "seen" in line and bare_address(line["seen"]) == who]
        return Seen(cast(State, found[-1]["as"]), found[-1]["note"]) if found else Seen("unknown")

    def notices(self, kind: Notice) -> list[str]:
        return [bare_address(who) for who in self._values(kind)]

    def wait_notice(self, kind: Notice, who: str) -> None:
        self._running.wait_until(lambda: who in self.notices(kind), f"{kind} of {who}")

    def received(self) -> list[Received]:
        return [
            Received(bare_address(line["from"]), lines_as_lf(line["text"])) for line in self._lines() if "from" in line
        ]

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        wanted = Received(sender, text)
        self._running.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop()


def say(**line: str) -> None:
    """One line out, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
