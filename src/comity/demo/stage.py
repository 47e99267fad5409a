"""The stage of the demo: a directory, two houses, their people, and every child process, all of them gone at the end.

Place on the path: around it. Whatever happens here is a command of the ``comity`` program, run as a person would
type it; the story (``story.py``) only looks at what the commands print and how they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from comity.demo.house import LOOPBACK, PORTS, House, Transport, Via

DOMAIN, OTHER_DOMAIN = "comity.test", "courtesy.test"
PATIENCE = 20.0
"""Seconds that any one thing may take before the demo says that it failed."""


class Failed(Exception):
    """Something did not happen as the story tells it; the text says what."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """What it printed, as JSON. Raises Failed if it is none."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise Failed(f"no JSON but {self.stdout[:200]!r}; {self.stderr[-400:].strip()}") from None


@dataclass(frozen=True, slots=True)
class Person:
    """One of the people: an account, a password, and a COMITY_HOME of their own."""

    name: str
    password: str
    home: Path
    house: House

    @property
    def address(self) -> str:
        """Their im: address."""
        return f"im:{self.name}@{self.house.domain}"

    @property
    def password_file(self) -> Path:
        """The file that their commands take the password from."""
        return self.home / "password"


class Child:
    """A process that goes on while the story does, its output read line by line."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name

    async def line(self) -> str:
        """The next line of its stdout. Raises Failed if none comes."""
        return await self._line(self._process.stdout)

    async def said(self) -> str:
        """The next line of its stderr. Raises Failed if none comes."""
        return await self._line(self._process.stderr)

    async def _line(self, stream: asyncio.StreamReader | None) -> str:
        assert stream is not None
        try:
            async with asyncio.timeout(PATIENCE):
                line = await stream.readline()
        except TimeoutError:
            raise Failed(f"{self.name} said nothing for {PATIENCE:g} seconds") from None
        if not line:
            raise Failed(f"{self.name} ended with exit code {await self._process.wait()}")
        return line.decode("utf-8", "replace").rstrip("\n")

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end; gives the exit code. One that does not go is killed."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        return await self._process.wait()


class Stage:
    """Use as an async context manager: the directory and all processes are gone after it.

    Args:
        folder: an empty directory for everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = _free_ports(2 * PORTS)
        self.house = House(folder / "house", DOMAIN, ports[:PORTS])
        self.neighbour = House(folder / "neighbour", OTHER_DOMAIN, ports[PORTS:])
        self.people = {
            name: Person(name, secrets.token_urlsafe(9), folder / name, house)
            for names, house in (
                (("alice", "bob", "carol", "mallory", "erin"), self.house),
                (("dora",), self.neighbour),
            )
            for name in names
        }
        self.servers: dict[str, Child] = {}
        """Running ones by their domain."""
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))

    # --- processes ----------------------------------------------------------------------------------------------------

    async def run(self, *arguments: str, whose: Person | None = None, stdin: str | bytes = "") -> Ended:
        """Run a command of ours to its end."""
        return await self.python(f"comity {arguments[0]}", "-m", "comity", *arguments, whose=whose, stdin=stdin)

    async def python(self, name: str, *arguments: str, whose: Person | None = None, stdin: str | bytes = "") -> Ended:
        """Run a process to its end."""
        process = await self._start(*arguments, whose=whose, stdin=asyncio.subprocess.PIPE)
        octets = stdin.encode("utf-8") if isinstance(stdin, str) else stdin
        try:
            async with asyncio.timeout(2 * PATIENCE):
                out, err = await process.communicate(octets)
        except TimeoutError:
            raise Failed(f"{name} did not end") from None
        assert process.returncode is not None
        return Ended(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    async def must(self, *arguments: str, whose: Person | None = None, stdin: str | bytes = "") -> Ended:
        """Run a command that has to end well. Raises Failed with what it said."""
        ended = await self.run(*arguments, whose=whose, stdin=stdin)
        if ended.exit_code:
            what = " ".join(arguments[:2])
            raise Failed(f"comity {what} ended with exit code {ended.exit_code}: {ended.stderr[-400:].strip()}")
        return ended

    async def spawn(self, name: str, *arguments: str, whose: Person | None = None, log: Path | None = None) -> Child:
        """Start a process that goes on; ``log`` takes its stderr."""
        with contextlib.ExitStack() as files:
            stderr = asyncio.subprocess.PIPE if log is None else files.enter_context(log.open("ab"))
            return Child(await self._start(*arguments, whose=whose, stderr=stderr), name)

    async def _start(
        self, *arguments: str, whose: Person | None, stdin: int = asyncio.subprocess.DEVNULL, stderr: Any = None
    ) -> asyncio.subprocess.Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COMITY_")}
        environment["COMITY_HOME"] = str(whose.home if whose else self.folder / "nobody")
        # A session of its own: Ctrl-C reaches the demo only, which ends its children in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if stderr is None else stderr,
            env=environment,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    # --- the house ----------------------------------------------------------------------------------------------------

    async def build(self) -> None:
        """``comity init`` for both, with free ports of loopback, and the way from each to the other."""
        pair = self.house, self.neighbour
        await asyncio.gather(*(self.must("init", str(house.folder), "--domain", house.domain) for house in pair))
        try:
            self.house.furnish(self.neighbour)
            self.neighbour.furnish(self.house)
        except ValueError as error:
            raise Failed(str(error)) from None

    async def serve(self, house: House | None = None) -> list[str]:
        """Start a server (the first, if none is named) and wait until it is ready; gives its addresses."""
        house = house or self.house
        serve = ("-m", "comity", "serve", "-c", str(house.config), "--json")
        server = await self.spawn(f"comity serve of {house.domain}", *serve, log=house.log)
        self.servers[house.domain] = server
        try:
            return [str(url) for url in json.loads(await server.line())["ready"]]
        except Failed as failed:
            log = house.log.read_text(encoding="utf-8", errors="replace")
            raise Failed(f"{failed}: {log[-400:].strip()}") from None

    async def make_openpgp(self, person: Person) -> None:
        """An OpenPGP key, and its certificate in a file to give to others."""
        new = ("keys", "new", person.address, "--kind", "openpgp", "--no-passphrase", "--json")
        made = (await self.must(*new, whose=person)).json()
        await self.must("keys", "export", made["fingerprint"], "-o", str(self._certificate(person)), whose=person)

    async def trust_openpgp(self, whose: Person, whom: Person) -> None:
        """``whose`` trusts the OpenPGP key of ``whom`` as it stands."""
        await self.must("keys", "trust", str(self._certificate(whom)), whose=whose)

    def _certificate(self, person: Person) -> Path:
        return self.folder / f"{person.name}.asc"

    def keeps(self, text: str) -> bool:
        """True if the octets of ``text`` stand in any file of the server."""
        octets = text.encode("utf-8")
        return any(octets in file.read_bytes() for file in self.house.folder.rglob("*") if file.is_file())

    async def settle(self, person: Person, *, has_key: bool) -> None:
        """Give one of the people an account, a key that the house's authority certifies, and trust in both authorities."""
        house = person.house
        person.home.mkdir(mode=0o700)
        person.password_file.touch(mode=0o600)
        person.password_file.write_text(person.password + "\n", encoding="utf-8")
        address = f"{person.name}@{house.domain}"
        jobs = [
            self.must(
                "account", "add", address, "--password-stdin", "-c", str(house.config), stdin=person.password + "\n"
            ),
            self.must("keys", "import", str(house.folder / "trust.pem"), "--trust-anchor", whose=person),
        ]
        if has_key:
            new = ("keys", "new", person.address, "--ca", str(house.ca_file.parent), "--no-passphrase")
            jobs.append(self.must(*new, whose=person))
        await asyncio.gather(*jobs)

    # --- what people do -----------------------------------------------------------------------------------------------

    def _sign_in(self, person: Person, via: Via, transport: Transport, port: int | None) -> list[str]:
        return [
            "--via",
            via,
            "--server",
            f"{LOOPBACK}:{port or person.house.ports[via, transport]}",
            "--transport",
            transport,
            "--ca",
            str(person.house.ca_file),
            "--password-file",
            str(person.password_file),
            "--json",
        ]

    async def listen(self, person: Person, via: Via, transport: Transport) -> Child:
        """``comity listen``, signed in."""
        options = self._sign_in(person, via, transport, None)
        name = f"comity listen of {person.name.capitalize()}"
        return await self._ready(name, "listening", ("listen", person.address), options, person)

    async def watch(self, person: Person, whom: Person, via: Via, transport: Transport) -> Child:
        """``comity watch``, signed in."""
        options = self._sign_in(person, via, transport, None)
        words = ("watch", whom.address, "--as", person.address)
        return await self._ready(f"comity watch of {person.name.capitalize()}", "watching", words, options, person)

    async def look(self, person: Person, whom: Person, via: Via, transport: Transport) -> dict[str, Any]:
        """``comity watch --once``: what is shown."""
        options = self._sign_in(person, via, transport, None)
        done = await self.must("watch", whom.address, "--as", person.address, "--once", *options, whose=person)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    async def publish(self, person: Person, state: str, note: str, via: Via, transport: Transport) -> Child:
        """``comity publish``, once the server has taken it."""
        options = self._sign_in(person, via, transport, None)
        words = ("publish", person.address, state, "--note", note)
        return await self._ready(f"comity publish of {person.name.capitalize()}", " is ", words, options, person)

    async def contacts(self, person: Person, action: str, whom: Person) -> None:
        """``comity contacts``, by XMPP, which can do all of it."""
        options = self._sign_in(person, "xmpp", "tls", None)
        await self.must("contacts", person.address, action, whom.address, *options, whose=person)

    async def _ready(self, name: str, word: str, words: Sequence[str], options: list[str], person: Person) -> Child:
        """A command that goes on; back when it says ``word``."""
        child = await self.spawn(name, "-m", "comity", *words, *options, whose=person)
        said = await child.said()
        if word not in said:
            await child.end(signal.SIGTERM)
            raise Failed(f"{name}: {said}")
        return child

    async def send(
        self,
        person: Person,
        to: Person,
        via: Via,
        transport: Transport,
        text: str,
        *extra: str,
        port: int | None = None,
    ) -> Ended:
        """``comity send``."""
        options = self._sign_in(person, via, transport, port)
        return await self.run(
            "send", "--from", person.address, "--to", to.address, *options, *extra, "--", text, whose=person
        )

    async def relay(self, *what: str) -> tuple[Child, int]:
        """The attacker's relay before the server's plain SIP port, and its own port; ``what`` it does is in relay.py."""
        port = str(self.house.ports["sip", "tcp"])
        child = await self.spawn("the relay", "-m", "comity.demo.relay", port, *what)
        return child, int(await child.line())

    async def steal(self, real: Person, to: Person, via: Via, entity: bytes) -> str:
        """The thief who knows the password of ``real`` sends an entity in that name; gives "accepted" or "refused"."""
        who = (str(real.house.ca_file), str(real.password_file), real.address, to.address)
        server = f"{LOOPBACK}:{real.house.ports[via, 'tls']}"
        ended = await self.python("the thief", "-m", "comity.demo.thief", via, server, *who, stdin=entity)
        if ended.exit_code:
            raise Failed(f"the thief ended with exit code {ended.exit_code}: {ended.stderr[-400:].strip()}")
        return "refused" if ended.stdout.strip() == "failure" else "accepted"

    async def trace(self, sha256: str, house: House | None = None) -> list[dict[str, str]]:
        """``comity trace``: what a node (the first, if none is named) knows of an object; [] if nothing."""
        ended = await self.run("trace", sha256, "--json", "-c", str((house or self.house).config))
        if ended.exit_code == 1 and "No message is known" in ended.stderr:
            return []
        if ended.exit_code:
            raise Failed(f"comity trace ended with exit code {ended.exit_code}: {ended.stderr[-400:].strip()}")
        steps: list[dict[str, str]] = ended.json()
        return steps


def _free_ports(count: int) -> list[int]:
    """Ports free for TCP and UDP, below those that systems give to outgoing connections: they stay free on a restart."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 32000), 400):
        with socket.socket() as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            try:
                stream.bind((LOOPBACK, port))
                datagrams.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"there are no {count} free ports on {LOOPBACK}")
