"""The attacker who knows Alice's password and not her key, in the demo: sends in her name whatever he likes.

Place on the path: at its beginning, in a process of its own: ``python -m comity.demo.thief VIA HOST:PORT CA PASSWORD_FILE
FROM TO`` signs in as FROM and sends the MIME entity on its standard input to TO as it stands, which ``comity send`` never
does. It prints how the server answered. ``intercepted`` and ``rewrapped`` are his tools.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from pathlib import Path
from typing import Literal

from comity.client import connect
from comity.cpim.address import Address
from comity.cpim.entity import split_entity

_MESSAGE = re.compile(rb"^MESSAGE .*?\r\n\r\n", re.MULTILINE | re.DOTALL)
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d+)\r\n", re.MULTILINE | re.IGNORECASE)
_MIME_HEADER = re.compile(rb"^Content-(?!Length)[^\r\n]*\r\n", re.MULTILINE | re.IGNORECASE)


def intercepted(record: bytes) -> bytes:
    """The MIME entity of the last MESSAGE request in a recorded SIP stream; b"" if there is none."""
    entity = b""
    for request in _MESSAGE.finditer(record):
        length = _LENGTH.search(request[0])
        body = record[request.end() : request.end() + int(length[1])] if length else b""
        if body:
            entity = b"".join(_MIME_HEADER.findall(request[0])) + b"\r\n" + body
    return entity


def rewrapped(entity: bytes) -> bytes:
    """The same signed message with the base64 of its signature broken into other lines: still good, other octets."""
    head, separator, signature = entity.rpartition(b"\r\n\r\n")
    text, dash, end = signature.partition(b"\r\n--")
    lines = base64.b64encode(base64.b64decode(text))
    return head + separator + b"\r\n".join(lines[at : at + 64] for at in range(0, len(lines), 64)) + dash + end


async def send(
    via: Literal["sip", "xmpp"], server: tuple[str, int], ca: Path, password: str, people: tuple[Address, Address]
) -> str:
    """Send what stands on standard input; gives the status of the server's answer."""
    obj = split_entity(sys.stdin.buffer.read())
    from_, to = people
    async with connect(via, from_, password, server=server, transport="tls", ca_file=ca, receive=False) as client:
        return (await client.send(obj, to)).status.value


def main() -> None:
    """Run it by the arguments of the command line."""
    via, server, ca, password_file, from_, to = sys.argv[1:]
    assert via in ("sip", "xmpp")
    host, _, port = server.rpartition(":")
    password = Path(password_file).read_text(encoding="utf-8").splitlines()[0]
    people = Address.parse(from_), Address.parse(to)
    print(asyncio.run(send(via, (host, int(port)), Path(ca), password, people)))  # type: ignore[arg-type]  # one of two, asserted above


if __name__ == "__main__":
    main()
