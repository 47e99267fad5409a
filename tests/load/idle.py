"""The other end of idle connections: a process that opens them, says when they stand, and holds them.

Run as ``python -m tests.load.idle PORT COUNT STAGE FIRST CA``: STAGE is "open" (a stream header was exchanged, nobody is
signed in) or "bound" (signed in, resource bound, stream management on, presence sent), or "taking" (the same without stream
management; the bodies of what came are printed at the end); with a CA (not "") it speaks TLS. It
comes from as many loopback addresses, and signs in as as many users, as it needs to keep to the server's own limits.
FIRST numbers its connections, so that two of these do not meet. Prints "ready"; the end of its standard input closes
all. Speaks XMPP by hand, so that nothing of Comity is measured against itself.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import os
import re
import resource
import selectors
import socket
import ssl
import sys

DOMAIN = "a.test"
PASSWORD = "correct horse"
DEVICES = 10
PER_ADDRESS = 50
HEADER = (
    f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
).encode()


def account(number: int) -> str:
    """Who connection ``number`` signs in as."""
    return f"idle{number // DEVICES}"


@functools.cache
def salted_password(salt: bytes, iterations: int) -> bytes:
    """Once an account, not once a connection."""
    return hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, iterations)


class IdleClient:
    """One connection, brought to a stage and left there."""

    def __init__(self, number: int, port: int, context: ssl.SSLContext | None) -> None:
        self.number = number
        self.account = account(number)
        self.heard = b""
        self.bodies: set[str] = set()
        place = number // PER_ADDRESS
        source = (f"127.1.{place // 250}.{place % 250 + 1}", 0)
        self.sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=source)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname=DOMAIN)
        self.ask(HEADER, b"</stream:features>")

    def ask(self, octets: bytes, end: bytes) -> bytes:
        """Send, then read until ``end`` came."""
        self.sock.sendall(octets)
        got = b""
        while end not in got:
            more = self.sock.recv(65536)
            assert more, got
            got += more
        return got

    def sign_in(self, *, keeps: bool = True) -> None:
        """SCRAM-SHA-256 without channel binding (RFC 5802), a resource, stream management if it ``keeps``, presence."""
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = f"n={self.account},r={nonce}"
        auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>%s</auth>"
        got = self.ask((auth % base64.b64encode(f"n,,{bare}".encode()).decode()).encode(), b"</challenge>")
        challenge = self.content(got).decode()
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        salted = salted_password(base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = f"c=biws,r={fields['r']}"
        signature = hmac.digest(hashlib.sha256(client_key).digest(), f"{bare},{challenge},{final}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        response = "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>%s</response>"
        self.ask((response % base64.b64encode(f"{final},p={proof}".encode()).decode()).encode(), b"</success>")
        self.ask(HEADER, b"</stream:features>")
        bind = f"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r{self.number}</resource></bind></iq>"
        self.ask(bind.encode(), b"</iq>")
        if keeps:
            self.ask(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>", b"<enabled")
        else:
            self.sock.sendall(b"<presence/>")

    def take(self) -> bool:
        """Read what came, keep the bodies, answer pings (XEP-0199); False at the end of the stream."""
        data = self.sock.recv(65536)
        *whole, self.heard = (self.heard + data).split(b"</iq>")
        for part in whole:
            self.bodies.update(text.decode() for text in re.findall(rb"<body>([^<]*)</body>", part))
            asked = re.search(rb"<iq [^>]*id='([^']*)'[^>]*><ping ", part)
            if asked is not None and b"type='get'" in asked[0]:
                self.sock.sendall(b"<iq type='result' id='%s'/>" % asked[1])
        return bool(data)

    def content(self, octets: bytes) -> bytes:
        """What a SASL element holds."""
        found = re.search(rb">([A-Za-z0-9+/=]+)</challenge>", octets)
        assert found is not None, octets
        return base64.b64decode(found.group(1))


def take_all(clients: list[IdleClient]) -> None:
    """Let all of them take what comes until standard input ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                while key.data.take() and getattr(key.data.sock, "pending", int)():
                    pass  # TLS has decrypted more than was read


def main(port: int, count: int, stage: str, first: int, ca: str) -> None:
    """Open, say so, hold, close."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = ssl.create_default_context(cafile=ca) if ca else None
    clients = []
    for number in range(first, first + count):
        client = IdleClient(number, port, context)
        if stage != "open":
            client.sign_in(keeps=stage == "bound")
        clients.append(client)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if stage == "taking":
        take_all(clients)
        sys.stdout.write(json.dumps(sorted(set().union(*(client.bodies for client in clients)))) + "\n")
    else:
        sys.stdin.read()
    for client in clients:
        client.sock.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
