"""Attackers of the load-shaped rows, in a process of their own: ``python -m tests.load.flood KIND PORT … ``.

Each kind prints one line of JSON when it has done what it does; ``silent`` then holds its connections until its standard
input ends. They come from loopback addresses 127.100.x.y, so that they meet nobody else's limits.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable


def say(**facts: float) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def source(number: int, addresses: int) -> tuple[str, int]:
    """Where connection ``number`` comes from, if there are so many addresses."""
    place = number % addresses
    return f"127.100.{place // 250}.{place % 250 + 1}", 0


def connect(port: int, number: int, addresses: int) -> socket.socket:
    """A connection, without a byte."""
    return socket.create_connection(("127.0.0.1", port), 30, source(number, addresses))


def silent(port: int, count: int, addresses: int) -> None:
    """L-01: ``count`` connects without a byte; those that stay open are held.

    Refused is what is closed soon after it was opened: on a busy machine the first ones meet the server's deadline for the
    silent (30 s) before the last one has been connected."""
    selector = selectors.DefaultSelector()
    refused = 0

    def reap(seconds: float) -> int:
        closed = selector.select(seconds)
        soon = time.monotonic() - 15.0
        for key, _ in closed:
            selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]  # all registered objects are sockets
        return sum(key.data > soon for key, _ in closed)

    for number in range(count):
        try:
            sock = connect(port, number, addresses)
        except ConnectionError:
            refused += 1
            continue
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, time.monotonic())
        if number % 64 == 0:
            refused += reap(0)
    while closed := reap(3.0):
        refused += closed
    say(opened=count - refused, refused=refused)
    sys.stdin.read()


def paced(seconds: float, rate: float, act: Callable[[int], None]) -> None:
    """Do ``act`` at most ``rate`` times a second for ``seconds``, and say how often it was done."""
    started = time.monotonic()
    number = 0
    while (elapsed := time.monotonic() - started) < seconds:
        if number / rate > elapsed:
            time.sleep(number / rate - elapsed)
        act(number)
        number += 1
    say(count=number, seconds=time.monotonic() - started)


def churn(port: int, seconds: float, rate: float, addresses: int) -> None:
    """L-02: connect and close, nothing else."""

    def act(number: int) -> None:
        try:
            connect(port, number, addresses).close()
        except ConnectionError:
            return  # refused: as good as closed

    paced(seconds, rate, act)


def handshakes(port: int, seconds: float, rate: float, addresses: int) -> None:
    """L-03: TLS handshakes, every second one given up after the first flight."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def act(number: int) -> None:
        try:
            with connect(port, number, addresses) as sock:
                if number % 2:
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    hello = context.wrap_bio(incoming, outgoing, server_hostname="a.test")
                    try:
                        hello.do_handshake()
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                else:
                    with context.wrap_socket(sock, server_hostname="a.test"):
                        pass
        except (ConnectionError, ssl.SSLError, TimeoutError):
            return  # refused above a cap

    paced(seconds, rate, act)


def main(kind: str, *arguments: str) -> None:
    """Run one of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if kind == "silent":
        port, count, addresses = arguments
        silent(int(port), int(count), int(addresses))
    else:
        port, seconds, rate, addresses = arguments
        {"churn": churn, "handshakes": handshakes}[kind](int(port), float(seconds), float(rate), int(addresses))


if __name__ == "__main__":
    main(*sys.argv[1:])
