"""Drive baresip 1.0: commands by its HTTP module, what it shows from its network console.

``ctrl_tcp`` would be the obvious door, but it cuts a command at 1,024 octets and tells nothing of incoming texts;
the HTTP module takes any length and line ends, and the console module prints exactly what the user's terminal would.
"""

from __future__ import annotations

import re
import socket
import threading
import urllib.request
from pathlib import Path
from urllib.parse import quote

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
from tests.interop.program import Program, free_port

_MODULES = "/usr/lib/baresip/modules"
_SHOWN = re.compile(r'\r(?P<peer>sips?:[^\s"]+): "(?P<text>.*?)"\n(?=\r|\Z)', re.DOTALL)
"""``menu`` prints one line per text; its quotes are not escaped, so the next line's CR decides where it ends."""

_CONFIG = """\
poll_method epoll
sip_listen 127.0.0.1:0
sip_cafile {ca_file}
net_interface 127.0.0.1
audio_player none
module_path {modules}
module httpd.so
module cons.so
module_app contact.so
module_app menu.so
module_app account.so
{presence}module_app debug_cmd.so
http_listen 127.0.0.1:{http_port}
cons_listen 127.0.0.1:{console_port}
"""
_STATES: dict[str, State] = {"online": "online", "offline": "offline", "busy": "busy"}


class Baresip(StockClient):
    name = "baresip"
    program = "baresip"
    protocol = "sip"
    transports = ("udp", "tcp", "tls")
    limits = Limits(send_octets=5_300, show_octets=440)
    """Sending: the HTTP module takes a request of 16 KiB, percent-encoded. Showing: a line buffer of 512 octets, and what
    does not fit, with the sender's address, is not shown at all, though answered with 200."""

    presence = Presence(tells=frozenset({"online", "offline"}), shows=frozenset({"online", "busy"}), away_as="offline")
    """It writes no notes and no activities, and reads activities by the octets ``<rpid:busy`` and ``<rpid:away`` alone."""

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        super().__init__(home, sign_in)
        self._http_port, self._console_port = free_port(), free_port()
        self._console: socket.socket | None = None
        self._shown = bytearray()
        self._shown_lock = threading.Lock()
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        account = self.sign_in
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "config").write_text(
            _CONFIG.format(
                ca_file=account.ca_file,
                modules=_MODULES,
                presence="module_app presence.so\n" if account.presence else "",
                http_port=self._http_port,
                console_port=self._console_port,
            )
        )
        # Its presence module publishes for the accounts that are there when it starts.
        (self.home / "accounts").write_text(f"{self._account_line()};pubint=60\n" if account.presence else "")
        contacts = account.contacts or (account.address,)
        asks = ";presence=p2p" if account.presence else ""
        (self.home / "contacts").write_text("".join(f'"{who}" <sip:{who}>{asks}\n' for who in contacts))
        self._program = Program("baresip", ["baresip", "-s", "-f", str(self.home)], self.home, terminal=False)
        self._console = self._program.wait_until(lambda: _connected(self._console_port), "its console")
        self._console.settimeout(None)
        self._listener = threading.Thread(target=self._listen, args=(self._console,), daemon=True)
        self._listener.start()
        if not account.presence:
            # Only now, so that the console shows what waited for this sign-in; a user writes the line into "accounts".
            self._command(f"uanew {self._account_line()}")
        registered = re.compile(re.escape(account.address) + r": \{0/\w+/v4\} 200 ")
        self._program.wait_until(lambda: registered.search(self._running.output), "a 200 to its REGISTER")

    def _account_line(self) -> str:
        account = self.sign_in
        return (
            f"<sip:{account.address};transport={account.transport}>;auth_user={account.user};"
            f"auth_pass={account.password};"
            f'outbound="sip:{account.host}:{account.port};transport={account.transport}";regint=60'
        )

    def _listen(self, console: socket.socket) -> None:
        while octets := console.recv(65536):
            with self._shown_lock:
                self._shown += octets

    def _command(self, line: str) -> str:
        url = f"http://127.0.0.1:{self._http_port}/raw/?{quote('/' + line, safe='')}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            octets: bytes = answer.read()
        return octets.decode(errors="replace")

    def send(self, to: str, text: str) -> None:
        """``/message`` goes to the current contact, so step through the list to ``to`` first."""
        for step in ["contact_prev"] * len(self.sign_in.contacts) + ["contact_next"] * len(self.sign_in.contacts):
            if f"<sip:{to}>" in self._command(step):
                break
        else:
            raise ValueError(f"{to} is not in the contact list: {self.sign_in.contacts}")
        answer = self._command(f"message {text}")
        if "failed" in answer:
            raise AssertionError(f"baresip did not send: {answer}")

    def received(self) -> list[Received]:
        with self._shown_lock:
            shown = self._shown.decode(errors="replace")
        return [Received(bare_address(m["peer"]), lines_as_lf(m["text"])) for m in _SHOWN.finditer(shown)]

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        wanted = Received(sender, text)
        self._running.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def tell(self, state: State, note: str = "") -> None:
        if state not in self.presence.tells or note:
            raise ValueError(f"baresip cannot say {state} {note}")
        self._command(f"presence_{state}")

    def watch(self, who: str) -> None:
        """It asked for all its contacts when it started."""
        if not self.sign_in.presence or who not in self.sign_in.contacts:
            raise ValueError(f"baresip watches its contacts from the start: {self.sign_in}")

    def seen(self, who: str) -> Seen:
        found = re.search(
            rf"(\w+)\S* {re.escape(who)}\b", re.sub(r"\x1b\[\d*;?m|<[^>]*>", "", self._command("contacts"))
        )
        state = found[1].lower() if found is not None else "unknown"
        return Seen(_STATES.get(state, "unknown"))

    def kill(self) -> None:
        super().kill()
        self.stop()

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop()
        console, self._console = self._console, None
        if console is not None:
            console.shutdown(socket.SHUT_RDWR)
            console.close()
        if self._listener is not None:
            self._listener.join(5)


def _connected(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=10)
    except ConnectionRefusedError:
        return None
