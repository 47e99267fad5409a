"""A real server process for stories: made by `comity init`, started by `comity serve`, killed by SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from comity.bindings.base import HostPort, Transport
from comity.client import Client, Received, connect
from comity.cpim.address import Address

Via = Literal["sip", "xmpp", "apex"]
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
PASSWORD = "correct horse"
READY_SECONDS = 20.0
EPHEMERAL = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
"""First port that the kernel gives to outgoing connections."""
ROOT = Path(__file__).parent.parent.parent


def free_ports(count: int) -> list[int]:
    """Ports nobody uses now, for TCP and UDP, and that no outgoing connection gets while their server is down."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(10_240, EPHEMERAL)
            tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


class ServerProcess:
    """One `comity serve` of its own directory; ports stay the same over restarts."""

    def __init__(
        self,
        directory: Path,
        limits: str = "",
        domains: tuple[str, ...] = ("a.test",),
        people: tuple[Address, ...] = (ALICE, BOB),
    ) -> None:
        self.directory = directory / "home"
        self.config = self.directory / "comity.toml"
        self.process: subprocess.Popen[str] | None = None
        self.tracer: list[str] = []
        """Words before the server's command, such as strace -D."""
        self.log = self.directory / "log"
        """Where its stderr goes."""
        self.domains = domains
        self.people = people
        self.make()
        self._ports = self._configure(limits)

    def make(self) -> None:
        """The directory with its authority and its accounts."""
        self.run("init", str(self.directory), *(word for domain in self.domains for word in ("--domain", domain)))
        for address in self.people:
            name = address.uri.removeprefix("im:")
            self.run("account", "add", name, "--password-stdin", "-c", str(self.config), text=PASSWORD)

    def _configure(self, limits: str) -> dict[tuple[str, str], int]:
        """Write comity.toml with ports that are free now; which they are."""
        sip, sips, xmpp, xmpps, server, servers, component, apex, apexs = free_ports(9)
        self.config.write_text(
            f"""[server]
domains = {json.dumps(self.domains)}
[sip]
listen = ["udp://127.0.0.1:{sip}", "tcp://127.0.0.1:{sip}", "tls://127.0.0.1:{sips}"]
[xmpp]
client = ["tcp://127.0.0.1:{xmpp}", "tls://127.0.0.1:{xmpps}"]
server = ["tcp://127.0.0.1:{server}", "tls://127.0.0.1:{servers}"]
component_listen = ["tcp://127.0.0.1:{component}"]
[apex]
listen = ["tcp://127.0.0.1:{apex}", "tls://127.0.0.1:{apexs}"]
[limits]
{limits}
""",
            encoding="utf-8",
        )
        return {
            ("sip", "udp"): sip,
            ("sip", "tcp"): sip,
            ("sip", "tls"): sips,
            ("xmpp", "tcp"): xmpp,
            ("xmpp", "tls"): xmpps,
            ("server", "tcp"): server,
            ("server", "tls"): servers,
            ("component", "tcp"): component,
            ("apex", "tcp"): apex,
            ("apex", "tls"): apexs,
        }

    def run(self, *arguments: str, text: str = "") -> str:
        """Run a comity command; its output."""
        command = [sys.executable, "-m", "comity", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def waiting(self) -> int:
        """How many messages the server holds undelivered."""
        lanes = json.loads(self.run("queue", "list", "--json", "-c", str(self.config)))
        return sum(int(lane["pending"]) for lane in lanes)

    def start(self, failpoint: str = "", program: str = "comity") -> None:
        """Start it and wait for its ready line.

        Args:
            failpoint: ``name[:nth]`` of the place at which it is to die.
            program: the module to run instead of the real one: a sabotaged build.
        """
        self.launch(failpoint, program)
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            line = self.process.stdout.readline() if ready else ""
            if re.match("comity: ready ", line):
                return
            if not line:
                break
        self.kill()
        raise AssertionError("the server did not get ready: " + self.log.read_text("utf-8")[-2000:])

    def launch(self, failpoint: str = "", program: str = "comity") -> None:
        """Start it and do not wait: it may die on the way."""
        command = [*self.tracer, sys.executable, "-m", program, "serve", "-c", str(self.config)]
        environment = {**os.environ, "COMITY_FAILPOINT": failpoint}
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=ROOT
            )

    def kill(self) -> None:
        """kill -9, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.reap()

    def stop(self) -> int:
        """SIGTERM and wait; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.reap()

    def reap(self) -> int:
        """Wait for its end; its exit code."""
        assert self.process is not None
        code = self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened: nothing of it runs on."""
        self.kill()

    def port(self, via: Via | Literal["server", "component"], transport: Transport) -> HostPort:
        """Where to connect."""
        return "127.0.0.1", self._ports[via, transport]

    @property
    def authority(self) -> Path:
        """Certificate of the CA to believe it by."""
        return self.directory / "data" / "tls" / "ca.pem"

    def client(
        self,
        via: Via,
        address: Address,
        transport: Transport = "tcp",
        *,
        receive: bool = True,
        patience: float = 30.0,
    ) -> Client:
        """A Comity client of this server."""
        return connect(
            via,
            address,
            PASSWORD,
            server=self.port(via, transport),
            transport=transport,
            ca_file=self.authority,
            receive=receive,
            patience=patience,
            instance=f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, address.uri)}",
        )


async def take(client: Client, count: int = 1) -> list[Received]:
    """The next messages, the last one taken too; no more may be waiting."""
    found: list[Received] = []
    messages = aiter(client.messages())
    async with asyncio.timeout(20):
        while len(found) < count:
            found.append(await anext(messages))
    asking = asyncio.ensure_future(anext(messages))  # asking for the next one takes it
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return found
