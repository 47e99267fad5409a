"""LG-6 and LG-14: a store full of messages for absent users, kill -9, start again, and everybody comes home.

The readers are XMPP clients of a few lines (SASL PLAIN on loopback); what they count is checked: nothing lost, nothing
twice but what the kill may repeat, each user's messages in order.
"""

import asyncio
import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import bench

import peers

HERE = Path(__file__).parent
USERS = 100
SENDERS = 64
"""The rig's message n is from sender n % SENDERS to user n % USERS."""
DOMAIN = "bench.test"
STREAM = (
    f"<stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
)
PING = re.compile(rb"<iq [^>]*id=['\"]([^'\"]*)['\"][^>]*><ping")
MARK = re.compile(rb"IMB:[0-9a-f]{8}:(\d+):")


def measure(queued: int, repeats: int) -> dict[str, object]:
    """Fill once, kill and start again ``repeats`` times, then let the users fetch all."""
    os.environ["BENCH_USERS"] = str(USERS)
    pid = peers.start("comity")
    src = {
        "kind": "sip",
        "host": "127.0.0.1",
        "port": 5060,
        "domain": DOMAIN,
        "users": SENDERS,
        "prefix": "a",
        "pass": "pw",
    }
    src |= {"transport": "tcp", "conns": 8, "tcpmode": "reuse"}
    dst = {"kind": "sip", "domain": DOMAIN, "users": USERS, "prefix": "off", "lport": 7100, "reg": 0}
    options = {"window": 256, "count": queued, "drain": 2, "until_resp": True, "timeout": 900}
    stored = bench.imload("msg", src, dst, pids=str(pid), size=64, **options)
    print(f"  stored {stored.get('accepted')} of {queued} in {stored.get('wall_s')} s", flush=True)
    accepting = []
    for _ in range(repeats):
        os.kill(pid, signal.SIGKILL)
        peers.stop("comity")
        began = time.monotonic()
        pid = serve()
        hello()
        accepting.append(round(time.monotonic() - began, 3))
        print(f"  killed, answering again after {accepting[-1]} s", flush=True)
    fetched = asyncio.run(fetch(stored["accepted"]))
    print(f"  {fetched}", flush=True)
    peers.stop("comity")
    return {"queued": queued, "stored": stored, "accepting_s": accepting, "fetched": fetched}


def serve() -> int:
    """Start Comity on the store as it is."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    command = [sys.executable, "-m", "comity", "serve", "-c", str(HERE / "comity.toml"), "--log-level", "warning"]
    with open(f"{peers.W}/comity.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    peers.favour(process.pid)
    Path(peers.pidfile("comity")).write_text(str(process.pid))
    return process.pid


def hello() -> None:
    """Return when the XMPP listener answers a stream header."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", 5222), 1) as sock:
                sock.sendall(STREAM.encode())
                heard = b""
                while b"features" not in heard:
                    heard += sock.recv(4096)
                return
        except OSError:
            time.sleep(0.005)
    peers.stop("comity")
    raise SystemExit("the server did not come back")


class Reader:
    """One user who comes home."""

    def __init__(self, number: int) -> None:
        self.name = f"off{number}"
        self.seen: list[int] = []
        self.first = 0.0

    async def run(self, expected: "Progress") -> None:
        """Sign in and read until all users together have everything."""
        reader, writer = await asyncio.open_connection("127.0.0.1", 5222, limit=1 << 22)
        plain = base64.b64encode(f"\0{self.name}\0pw".encode()).decode()
        steps = [
            (STREAM, b"</stream:features>"),
            (f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>", b"<success"),
            (STREAM, b"</stream:features>"),
            ("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", b"</iq>"),
        ]
        for text, answer in steps:
            writer.write(text.encode())
            await reader.readuntil(answer)
        writer.write(b"<presence/>")
        rest = b""
        while not expected.is_complete:
            try:
                data = rest + await asyncio.wait_for(reader.read(1 << 16), 1)
            except TimeoutError:
                continue
            end = data.rfind(b">") + 1
            numbers = [int(found[1]) for found in MARK.finditer(data[:end])]
            for ping in PING.finditer(data[:end]):
                writer.write(b"<iq type='result' id='%b' to='%b'/>" % (ping[1], DOMAIN.encode()))
            rest = data[end:]
            if numbers and not self.seen:
                self.first = time.monotonic()
            self.seen += numbers
            expected.took(len(numbers))
        writer.close()


class Progress:
    """How many are still to come; gives up after 20 s without one."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.last = time.monotonic()

    def took(self, count: int) -> None:
        """So many more have come."""
        self.left -= count
        if count:
            self.last = time.monotonic()

    @property
    def is_complete(self) -> bool:
        """All are there, or nothing comes any more."""
        return self.left <= 0 or time.monotonic() - self.last > 20


def disordered(seen: list[int]) -> int:
    """How many of one sender's messages came after a later one of the same sender."""
    latest, count = [-1] * SENDERS, 0
    for number in seen:
        count += number < latest[number % SENDERS]
        latest[number % SENDERS] = max(number, latest[number % SENDERS])
    return count


async def fetch(count: int) -> dict[str, object]:
    """All users sign in and read; gives what came, how fast, and what was wrong."""
    progress, readers, began = Progress(count), [Reader(n) for n in range(USERS)], time.monotonic()
    await asyncio.gather(*(reader.run(progress) for reader in readers))
    seconds = progress.last - min(reader.first for reader in readers if reader.first)
    different = sum(len(set(reader.seen)) for reader in readers)
    total = sum(len(reader.seen) for reader in readers)
    disorder = sum(disordered(reader.seen) for reader in readers)
    return {
        "delivered": different,
        "lost": count - different,
        "twice": total - different,
        "out_of_order": disorder,
        "first_after_sign_in_s": round(min(r.first for r in readers if r.first) - began, 3),
        "per_second": round(total / seconds, 1),
    }
