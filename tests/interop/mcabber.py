"""Drive mcabber 1.1 by its FIFO; what came is read from the history it keeps of each conversation."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from tests.interop.clients import (
    Limits,
    Presence,
    Received,
    Seen,
    SignIn,
    State,
    StockClient,
    bare_address,
    lines_as_lf,
    listed,
)
from tests.interop.program import Program

_CONFIG = """\
set jid = {address}
set password = {password}
set server = {host}
set port = {port}
set tls = {starttls}
set ssl = {direct}
set ssl_ca = {ca_file}
set resource = desk
set disable_random_resource = 1
set carbons = 1
set beep_on_message = 0
set fifo_name = {home}/fifo
module load fifo
set tracelog_level = 3
set tracelog_file = {home}/trace
set logging = 1
set logging_dir = {home}/texts
"""

_ENTRY = re.compile(r"(?P<kind>M[RS]) (?P<when>\S+) (?P<more>\d{3}) ")
"""An entry of its history: received or sent, when, and how many lines follow the first."""

_STATUS = re.compile(r"^S(?P<letter>\S) \S+ 000 (?P<note>.*)$", re.MULTILINE)
"""An entry of its history: the status it shows of that contact, and the text with it."""
_STATES: dict[str, State] = {"O": "online", "F": "online", "A": "away", "N": "away", "D": "busy", "_": "offline"}


class Mcabber(StockClient):
    name = "mcabber"
    program = "mcabber"
    protocol = "xmpp"
    transports = ("starttls", "tls")
    limits = Limits(send_octets=8_000)
    shows_copies = True
    presence = Presence(
        tells=frozenset({"online", "away", "busy"}),
        shows=frozenset({"online", "away", "busy"}),
        tells_notes=True,
        shows_notes=True,
        answers=True,
    )

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        super().__init__(home, sign_in)
        self._sent = 0

    def start(self) -> None:
        account = self.sign_in
        (self.home / "texts").mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        config = self.home / "mcabberrc"
        config.write_text(
            _CONFIG.format(
                address=account.address,
                password=account.password,
                host=account.host,
                port=account.port,
                starttls=int(account.transport == "starttls"),
                direct=int(account.transport == "tls"),
                ca_file=account.ca_file,
                home=self.home,
            )
        )
        config.chmod(0o600)  # it asks about a file others can read
        self._program = Program("mcabber", ["mcabber", "-f", str(config)], self.home, terminal=True)
        self._program.wait_until(lambda: "Your status has been set" in self._trace(), "its first presence")

    def _trace(self) -> str:
        trace = self.home / "trace"
        return trace.read_text(errors="replace") if trace.exists() else ""

    def sign_in_again(self) -> None:
        self._type("connect")

    def send(self, to: str, text: str) -> None:
        """From a file: the only way that takes line ends; mcabber refuses one of 8 KiB or more."""
        self._sent += 1
        source = self.home / f"out-{self._sent}"
        source.write_text(text)
        self._type(f"say_to -q -f {source} {to}")
        executed = f"Executing FIFO command: say_to -q -f {source} {to}"
        self._running.wait_until(lambda: executed in self._trace(), "the command it was given")
        if f"Message file is too big ({source})" in self._trace():
            raise AssertionError(f"mcabber: {len(text.encode())} octets are too many")

    def received(self) -> list[Received]:
        return self._entries("MR")

    def wait_copy(self, text: str) -> None:
        self._running.wait_until(
            lambda: any(entry.text == text for entry in self._entries("MS")), f"a copy of {text!r}"
        )

    def _entries(self, kind: str) -> list[Received]:
        shown = []
        for history in (self.home / "texts").iterdir():
            lines = iter(history.read_text(errors="replace").split("\n"))
            for line in lines:
                entry = _ENTRY.match(line)
                if entry is None:
                    continue
                text = "\n".join([line[entry.end() :], *itertools.islice(lines, int(entry["more"]))])
                if entry["kind"] == kind:
                    shown.append((entry["when"], Received(bare_address(history.name), lines_as_lf(text))))
        return [received for _, received in sorted(shown, key=lambda pair: pair[0])]

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        wanted = Received(sender, text)
        self._running.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def tell(self, state: State, note: str = "") -> None:
        word = {"busy": "dnd"}.get(state, state)
        before = self._trace().count("Your status has been set")
        self._type(f"status {word} {note or '-'}")  # without a text it keeps the last one; "-" is none
        self._running.wait_until(lambda: self._trace().count("Your status has been set") > before, "its new status")

    def watch(self, who: str) -> None:
        self._type(f"add {who}")

    def wait_asked(self, who: str) -> None:
        asked = f"<{who}> wants to subscribe to your presence updates"
        self._running.wait_until(lambda: asked in self._trace(), f"the request of {who}")

    def answer(self, who: str, granted: bool) -> None:
        self._type(f"authorization {'allow' if granted else 'cancel'} {who}")

    def seen(self, who: str) -> Seen:
        """From its history, where it notes each change of a contact's status."""
        history = self.home / "texts" / who
        found = _STATUS.findall(history.read_text(errors="replace")) if history.exists() else []
        return Seen(_STATES[found[-1][0]], found[-1][1]) if found else Seen("unknown")

    def _type(self, command: str) -> None:
        with (self.home / "fifo").open("w") as fifo:
            fifo.write(command + "\n")

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop()
