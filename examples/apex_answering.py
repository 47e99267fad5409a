#!/usr/bin/env python3
"""An APEX endpoint application: whoever writes to it gets the length of what they wrote, whatever protocol they write by.

    COMITY_PASSWORD=... python examples/apex_answering.py bob@example.org 127.0.0.1:913 ca.pem

It attaches as the endpoint ADDRESS (RFC 3340 section 4.4.1) at the relay at HOST:PORT, which it believes by the authority in the
file. A message counts as taken when the next one is asked for: if this program dies before it answered, it gets it again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from comity.client import Received, connect, text_object
from comity.cpim.address import Address


def answer(received: Received) -> str:
    """What to say to a message."""
    if received.text is None:
        return f"That was {received.object.media_type}, which I cannot read."
    by = received.history[0].in_protocol if received.history else "apex"
    return f"You wrote {len(received.text)} characters by {by}."


async def main(name: str, server: str, authority: str) -> None:
    own = Address.im(*name.split("@"))
    host, _, port = server.rpartition(":")
    ca_file = Path(authority)
    async with connect(
        "apex", own, os.environ["COMITY_PASSWORD"], server=(host, int(port)), ca_file=ca_file
    ) as endpoint:
        print(f"attached as {name}", flush=True)
        async for received in endpoint.messages():
            if received.report is not None:
                continue  # an answer of ours was not delivered
            said = answer(received)
            response = await endpoint.send(text_object(own, received.from_, said), received.from_)
            print(f"{received.from_.uri}: {said} ({response.status.value})", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
