"""Drive Linphone 5.1 by its own daemon: commands over a Unix socket, what came from its event queue; its presence by its console.

The daemon's ``message`` command ends at the line end, and ``lp-sendmsg`` of the same package crashes in Debian 12,
so Linphone's command line sends single lines only; it shows several.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable
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

_EVENT = re.compile(r'From: (?P<sender>\S+)\nTo: \S+\nId: \S+\nContent: "(?P<text>.*)"\s*\Z', re.DOTALL)

_CONFIG = """\
[sip]
sip_port={udp_port}
sip_tcp_port={tcp_port}
sip_tls_port={tls_port}
root_ca={ca_file}
verify_server_certs=1
verify_server_cn=1
default_proxy=0
use_ipv6=0
[net]
mtu=1300
[proxy_0]
reg_proxy=<sip:{host}:{port};transport={transport}>
reg_route=<sip:{host}:{port};transport={transport};lr>
reg_identity=sip:{address}
reg_expires=600
reg_sendregister=1
publish={publish}
[auth_info_0]
username={user}
passwd={password}
realm={domain}
"""
_ANY_PORT, _NO_PORT = -1, 0


def _config(account: SignIn) -> str:
    return _CONFIG.format(
        udp_port=_ANY_PORT if account.transport == "udp" else _NO_PORT,
        tcp_port=_ANY_PORT if account.transport == "tcp" else _NO_PORT,
        tls_port=_ANY_PORT if account.transport == "tls" else _NO_PORT,
        ca_file=account.ca_file,
        host="localhost" if account.host == "127.0.0.1" else account.host,  # it takes no IP address from a SAN
        port=account.port,
        transport=account.transport,
        address=account.address,
        user=account.user,
        password=account.password,
        domain=account.domain,
        publish=int(account.presence),
    )


class Linphone(StockClient):
    name = "linphone"
    program = "linphone-daemon"
    protocol = "sip"
    transports = ("udp", "tcp", "tls")
    limits = Limits(send_octets=12_000, sends_lines=False)
    """12,000 octets is the longest that was tried; the line end ends the daemon's command."""

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        super().__init__(home, sign_in)
        self._pipe: socket.socket | None = None
        self._received: list[Received] = []
        self._pipe_name = f"comity-{os.getpid()}-{abs(hash(home)):x}"

    def start(self) -> None:
        account = self.sign_in
        for folder in (".local/share/linphone", ".config/linphone"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)  # it opens its database there and makes no folder
        config = self.home / "linphonerc"
        config.write_text(_config(account))
        path = Path("/tmp") / self._pipe_name  # the daemon puts it there whatever it is called
        argv = ["linphone-daemon", "--pipe", self._pipe_name, "--config", str(config), "--disable-stats-events"]
        self._program = Program("linphone", [*argv, "--log", str(self.home / "log")], self.home, terminal=False)
        self._pipe = self._program.wait_until(lambda: _connected(path), f"its socket {path}")
        self._program.wait_until(
            lambda: "LinphoneRegistrationOk" in self._command("register-status ALL"), "a 200 to its REGISTER"
        )

    def _command(self, line: str) -> str:
        assert self._pipe is not None, "not started"
        self._pipe.sendall(line.encode() + b"\n")
        answer = self._pipe.recv(1 << 20)
        if not answer.startswith(b"Status:"):
            raise AssertionError(f"linphone answered {answer[:200]!r} to {line[:60]!r}")
        return answer.decode(errors="replace")

    def send(self, to: str, text: str) -> None:
        if "\n" in text:
            raise ValueError("linphone-daemon sends single lines")
        answer = self._command(f"message sip:{to} {text}")
        if not answer.startswith("Status: Ok"):
            raise AssertionError(f"linphone did not send: {answer}")

    def received(self) -> list[Received]:
        while True:
            answer = self._command("pop-event")
            if "Event-type: message-received" in answer:
                event = _EVENT.search(answer)
                if event is None:
                    raise AssertionError(f"not understood: {answer!r}")
                self._received.append(Received(bare_address(event["sender"]), lines_as_lf(event["text"])))
            elif "Event-type:" not in answer:
                return list(self._received)

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        wanted = Received(sender, text)
        self._running.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def stop(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        program, self._program = self._program, None
        if program is not None:
            program.stop(signal.SIGTERM)
            (Path("/tmp") / self._pipe_name).unlink(missing_ok=True)


class LinphoneConsole(StockClient):
    """``linphonec``, for presence: the daemon knows nothing of friends."""

    name = "linphonec"
    program = "linphonec"
    protocol = "sip"
    transports = ("udp", "tcp", "tls")
    presence = Presence(tells=frozenset({"online"}), shows=frozenset({"online", "away", "busy"}))
    """It publishes that it is there while it is; its console has no word for anything else."""

    def start(self) -> None:
        for folder in (".local/share/linphone", ".config/linphone"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        config = self.home / "linphonerc"
        config.write_text(self.configuration())
        argv = ["linphonec", "-c", str(config), "-d", "6", "-l", str(self.home / "log")]
        self._program = Program("linphonec", argv, self.home, terminal=True)
        log = self.home / "log"
        self._program.wait_until(
            lambda: log.exists() and "LinphoneRegistrationOk" in log.read_text(errors="replace"),
            "a 200 to its REGISTER",
        )

    def wait_until(self, look: Callable[[], bool], what: str) -> None:
        """Wait for something that its log says."""
        self._running.wait_until(look, what)

    def configuration(self) -> str:
        """What stands in its ``linphonerc``."""
        return _config(self.sign_in)

    def send(self, to: str, text: str) -> None:
        raise NotImplementedError("texts are the daemon's")

    def received(self) -> list[Received]:
        raise NotImplementedError("texts are the daemon's")

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        raise NotImplementedError("texts are the daemon's")

    def tell(self, state: State, note: str = "") -> None:
        if state != "online" or note:
            raise ValueError(f"linphonec cannot say {state} {note}")

    def watch(self, who: str) -> None:
        self._running.type(f'friend add "{who.partition("@")[0]}" sip:{who}\n')

    def seen(self, who: str) -> Seen:
        found = re.findall(rf"Friend [^\n]*<sip:{re.escape(who)}> is ([^\r\n]+)", self._running.output)
        return Seen(_STATES.get(found[-1], "unknown") if found else "unknown")

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop(signal.SIGTERM)


_STATES: dict[str, State] = {
    "Online": "online",
    "Away": "away",
    "Be right back": "away",
    "Busy": "busy",
    "Do not disturb": "busy",
    "On the phone": "busy",
    "Offline": "offline",
}


def _connected(path: Path) -> socket.socket | None:
    pipe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    pipe.settimeout(10)
    try:
        pipe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        pipe.close()
        return None
    return pipe
