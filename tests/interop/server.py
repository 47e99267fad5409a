"""The real program under test: ``comity init``, ``account add`` and ``serve``, as an operator types them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from comity.client import connect
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Response
from tests.interop.clients import Protocol, SignIn, Transport
from tests.interop.program import Program, free_port

_ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "a.test"


class ComityServer:
    """A running ``comity serve`` for ``a.test`` on loopback, with the configuration file ``comity init`` wrote."""

    def __init__(self, folder: Path, limits: dict[str, float] | None = None) -> None:
        self.folder = folder
        self._limits = limits or {}
        self.config = folder / "house" / "comity.toml"
        self.ca_file = folder / "house" / "data" / "tls" / "ca.pem"
        self._env = {"PYTHONPATH": str(_ROOT / "src"), "HOME": str(folder), "PYTHONWARNINGS": "error"}
        plain_sip, tls_sip, plain_xmpp, tls_xmpp = (free_port() for _ in range(4))
        self.ports: dict[tuple[Protocol, Transport], int] = {
            ("sip", "udp"): plain_sip,
            ("sip", "tcp"): plain_sip,
            ("sip", "tls"): tls_sip,
            ("xmpp", "starttls"): plain_xmpp,
            ("xmpp", "tls"): tls_xmpp,
        }
        self._program: Program | None = None
        self._accounts = 0

    def comity(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
        """Run one command to its end and give what it printed; AssertionError if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "comity", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **self._env, **(env or {})},
            check=False,
        )
        assert done.returncode == 0, f"comity {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Make the house, open free ports on loopback only, serve, and wait for the ready line."""
        self.comity("init", str(self.config.parent), "--domain", DOMAIN)
        text = self.config.read_text()
        ports = self.ports
        for key, urls in {
            "listen": [f"{name}://127.0.0.1:{ports['sip', name]}" for name in ("tls", "udp", "tcp")],
            "client": [f"tcp://127.0.0.1:{ports['xmpp', 'starttls']}", f"tls://127.0.0.1:{ports['xmpp', 'tls']}"],
        }.items():
            text, changed = re.subn(
                rf"^{key} = \[.*\]$", f"{key} = {urls!r}".replace("'", '"'), text, flags=re.MULTILINE
            )
            assert changed == 1, f"{key} stands {changed} times in what comity init wrote"
        # COMPAT Cyrus SASL (libpurple): refuses the usual 100,000.
        text = text.replace("# scram_iterations = 100000", "scram_iterations = 65536")
        limits = "".join(f"{key} = {value}\n" for key, value in self._limits.items())
        self.config.write_text(text.replace("[limits]\n", f"[limits]\n{limits}"))
        self.comity("config", "check", "-c", str(self.config))
        self.serve()

    def serve(self) -> None:
        """Serve the house that is there, and wait for the ready line."""
        self._program = Program(
            "comity",
            [sys.executable, "-m", "comity", "serve", "-c", str(self.config)],
            self.folder,
            terminal=False,
            env=self._env,
        )
        self._program.wait_until(lambda: re.search(r"^comity: ready .*$", self.log, re.MULTILINE), "its ready line")

    @property
    def log(self) -> str:
        """What the server wrote to stdout and stderr so far."""
        assert self._program is not None, "not started"
        return self._program.output

    def new_account(self, name: str) -> str:
        """Add an account nobody used before and give its address; its password is ``password_of`` it."""
        self._accounts += 1
        address = f"{name}{self._accounts}@{DOMAIN}"
        self.add_account(address)
        return address

    def add_account(self, address: str) -> None:
        self.comity(
            "account", "add", address, "--password-stdin", "-c", str(self.config), stdin=password_of(address) + "\n"
        )

    def sign_in(
        self, address: str, protocol: Protocol, transport: Transport, *contacts: str, presence: bool = False
    ) -> SignIn:
        """What the user of ``address`` types into a client."""
        port = self.ports[protocol, transport]
        return SignIn(address, password_of(address), "127.0.0.1", port, transport, self.ca_file, contacts, presence)

    def wait_queued(self, address: str, count: int = 1) -> None:
        """Wait until ``comity queue list`` says that ``count`` texts wait for ``address``."""
        assert self._program is not None, "not started"

        def waiting() -> bool:
            lanes = json.loads(self.comity("queue", "list", "--json", "-c", str(self.config)))
            return any(address in lane["lane"] and lane["pending"] == count for lane in lanes)

        self._program.wait_until(waiting, f"{count} texts queued for {address}")

    def contacts(self, address: str, action: str, *words: str, via: Protocol = "xmpp") -> str:
        """``comity contacts`` as the owner of ``address`` types it."""
        password = self.folder / f"{address.partition('@')[0]}.password"
        password.write_text(password_of(address) + "\n")
        door = ["--via", via, "--server", f"localhost:{self.ports[via, 'tls']}", "--transport", "tls"]
        file = ["--password-file", str(password), "--ca", str(self.ca_file)]
        return self.comity("contacts", address, action, *words, *door, *file)

    def wait_request(self, address: str, who: str) -> None:
        """Wait until the owner of ``address``, who has a SIP phone only, could see that ``who`` asks."""
        assert self._program is not None, "not started"
        self._program.wait_until(
            lambda: who in self.contacts(address, "requests", "--json", via="sip"), f"{who} asking to see {address}"
        )

    def signed_text(self, sender: str, to: str, text: str) -> None:
        """Send ``text`` in a message/cpim object that ``sender``, who gets a key for it, signed."""
        home = self.folder / f"home-{sender.partition('@')[0]}"
        env = {"COMITY_HOME": str(home)}
        if not home.exists():
            self.comity("keys", "new", f"im:{sender}", env=env)
        password = home / "password"
        password.write_text(password_of(sender) + "\n")
        door = ["--via", "sip", "--server", f"localhost:{self.ports['sip', 'tls']}", "--transport", "tls"]
        people = ["--from", f"im:{sender}", "--to", f"im:{to}", "--password-file", str(password)]
        self.comity("send", *people, *door, "--ca", str(self.ca_file), "--sign", text, env=env)

    def send_object(self, sender: str, to: str, thing: MimeObject) -> Response:
        """Send an object by our own client, as ``sender``; what became of it."""

        async def send() -> Response:
            address, password = Address.parse(f"im:{sender}"), password_of(sender)
            door = "localhost", self.ports["sip", "tls"]
            async with connect("sip", address, password, server=door, ca_file=self.ca_file, receive=False) as client:
                return await client.send(thing, Address.parse(f"im:{to}"))

        return asyncio.run(send())

    def kill(self) -> None:
        """kill -9: nothing is drained, nothing is said to anybody."""
        program, self._program = self._program, None
        assert program is not None, "not started"
        program.stop(signal.SIGKILL)

    def stop(self) -> int:
        """Drain and stop; gives the exit status."""
        program, self._program = self._program, None
        return program.stop() if program is not None else 0


def password_of(address: str) -> str:
    """A password of its own for each account, with characters that must survive digests, SCRAM and PLAIN.

    No space, semicolon or quotation mark: baresip's account line has no way to write them.
    """
    return f"Pass%{address.partition('@')[0]}&ü"
