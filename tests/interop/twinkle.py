"""Drive Twinkle 1.10 by its console: commands go to its standard input, what came is read from what it prints."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.interop.clients import Limits, Received, SignIn, StockClient, bare_address, lines_as_lf, listed
from tests.interop.program import Program, free_port

_PROFILE = """\
user_name={user}
user_domain={domain}
auth_name={user}
auth_pass={password}
outbound_proxy={host}:{port};transport={transport}
all_requests_to_proxy=yes
sip_transport={transport}
registration_time=600
register_at_startup=yes
"""

_SYSTEM = """\
sip_port={sip_port}
rtp_port={rtp_port}
start_user_profile=me
start_user_host=127.0.0.1
validate_audio_dev=no
log_show_sip=yes
log_show_debug=yes
"""

_BEGUN = re.compile(r"me: registration succeeded|Failed to create a \w+ socket")
_SHOWN = re.compile(
    r"\nReceived message\nFrom:\t\t(?P<sender>[^\n]+)\nTo:\t\t[^\n]+\n(?:Subject:[^\n]*\n)?(?:[A-Z][\w-]*:\t[^\n]*\n)*\n"
    r"(?P<text>.*?)\n\n(?=\Z|\nReceived message\n|message -f |register\n|Twinkle> |\n?me[,:] )",
    re.DOTALL,
)
"""An empty line ends a text, and may stand inside one: then neither a command nor a notice follows it."""


class Twinkle(StockClient):
    name = "twinkle"
    program = "twinkle-console"
    protocol = "sip"
    transports = ("udp", "tcp")
    limits = Limits()

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        super().__init__(home, sign_in)
        self._sent = 0

    def start(self) -> None:
        account = self.sign_in
        folder = self.home / ".twinkle"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "me.cfg").write_text(
            _PROFILE.format(
                user=account.user,
                domain=account.domain,
                password=account.password,
                host=account.host,
                port=account.port,
                transport=account.transport,
            )
        )
        while True:
            (folder / "twinkle.sys").write_text(_SYSTEM.format(sip_port=free_port(), rtp_port=free_port()))
            self._program = Program("twinkle", ["twinkle-console", "me.cfg"], self.home, terminal=False)
            met = self._running.wait_until(lambda: _BEGUN.search(self._running.output), "a 200 to its REGISTER")
            if met[0].startswith("me"):
                return
            self.stop()  # somebody else took the port; it cannot pick one itself

    def send(self, to: str, text: str) -> None:
        """As a file: the command line takes no line ends and no quotation marks."""
        self._sent += 1
        source = self.home / f"out-{self._sent}.txt"
        source.write_text(text)
        self._running.type(f"message -f {source} sip:{to}\n")
        self._running.wait_output(f"message -f {source}")

    def received(self) -> list[Received]:
        return [
            Received(bare_address(m["sender"]), lines_as_lf(m["text"]))
            for m in _SHOWN.finditer(self._running.output.replace("\r\n", "\n"))
        ]

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        wanted = Received(sender, text)
        self._running.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop(signal.SIGKILL)  # asked politely, it takes more than 3 s to say good-bye
