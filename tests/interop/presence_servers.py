"""Presence servers of others, as child processes on loopback: Kamailio for SIP, Prosody for XMPP."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

from tests.interop.program import Program, free_port
from tests.peers import need_program

DOMAIN = "peer.test"
PASSWORD = "secret-of-all"
_TABLES = ("version", "presentity", "active_watchers", "watchers", "xcap")

_PROSODY = """
daemonize = false
run_as_root = true
pidfile = "@FOLDER@/prosody.pid"
data_path = "@FOLDER@/data"
certificates = "@FOLDER@/certs"
log = { { levels = { min = "info" }, to = "console" } }
interfaces = { "127.0.0.1" }
c2s_ports = { @PORT@ }
s2s_ports = { }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
modules_enabled = { "roster", "saslauth", "disco", "ping", "blocklist", "smacks" }
modules_disabled = { "s2s", "tls", "offline" }
smacks_hibernation_time = 60
VirtualHost "@DOMAIN@"
"""


class Kamailio:
    """Kamailio as a presence server (RFC 3856, 3903) with digest; anybody of peer.test may sign in with one password, and everybody may
    see everybody.

    Args:
        folder: for its files.
        least: shortest duration it takes.
    """

    def __init__(self, folder: Path, *, least: int = 1) -> None:
        self.port = free_port()
        self._folder = folder
        self._values = {
            "PORT": str(self.port),
            "DOMAIN": DOMAIN,
            "PASSWORD": PASSWORD,
            "FOLDER": str(folder),
            "LEAST": str(least),
        }
        self._program: Program | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = need_program("kamailio")
        modules = Path(need_program("presence_xml.so")).parent
        (self._folder / "db").mkdir(parents=True)
        (self._folder / "run").mkdir()
        for table in _TABLES:
            shutil.copy(Path("/usr/share/kamailio/dbtext/kamailio") / table, self._folder / "db" / table)
        text = (Path(__file__).parent / "kamailio.cfg").read_text()
        config = self._folder / "kamailio.cfg"
        config.write_text(filled(text, self._values | {"MODULES": f"{modules}/"}))
        argv = [program, "-DD", "-E", "-m", "64", "-w", str(self._folder), "-Y", str(self._folder / "run")]
        self._program = Program("kamailio", [*argv, "-f", str(config)], self._folder / "home", terminal=False)
        wait_for(self._program, self.port)

    def stop(self) -> None:
        """Stop it and its children."""
        if self._program is not None:
            self._program.stop()

    @property
    def output(self) -> str:
        return "" if self._program is None else self._program.output


class Prosody:
    """Prosody for peer.test without TLS; the accounts are written before it starts."""

    def __init__(self, folder: Path, *accounts: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._accounts = accounts
        self._program: Program | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = need_program("prosody")
        folder = self._folder / "data" / DOMAIN.replace(".", "%2e") / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        for account in self._accounts:
            (folder / f"{account}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
        config = self._folder / "prosody.cfg.lua"
        values = {"PORT": str(self.port), "DOMAIN": DOMAIN, "FOLDER": str(self._folder)}
        config.write_text(filled(_PROSODY, values))
        argv = [program, "-F", "--config", str(config)]
        self._program = Program("prosody", argv, self._folder / "home", terminal=False)
        wait_for(self._program, self.port)

    def stop(self, *, is_crash: bool = False) -> None:
        """Stop it."""
        if self._program is not None:
            self._program.stop(signal.SIGKILL if is_crash else signal.SIGTERM)
            self._program = None

    @property
    def output(self) -> str:
        return "" if self._program is None else self._program.output


def filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def wait_for(program: Program, port: int, host: str = "127.0.0.1") -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, port)) == 0

    program.wait_until(listens, f"port {port} open")
