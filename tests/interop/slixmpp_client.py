"""Drive slixmpp: a library, but one nobody here wrote, and the only driven client that knows SCRAM-SHA-256 and -512.

It runs in a process of its own (this file as a program), so that its event loop and its warnings stay out of the tests.
Lines of JSON go in and out: ``{"to", "text"}`` in, ``{"state"}`` or ``{"from", "text"}`` out.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

from tests.interop.clients import Limits, Received, SignIn, StockClient, bare_address, listed
from tests.interop.program import Program

_ROOT = Path(__file__).resolve().parents[2]


class SlixmppClient(StockClient):
    name = "slixmpp"
    program = None
    protocol = "xmpp"
    transports = ("starttls", "tls")
    limits = Limits()

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        super().__init__(home, sign_in)
        self._program: Program | None = None

    def start(self) -> None:
        account = self.sign_in
        self.home.mkdir(parents=True, exist_ok=True)
        settings = {
            "jid": f"{account.address}/desk",
            "password": account.password,
            "host": account.host,
            "port": account.port,
            "direct_tls": account.transport == "tls",
            "ca_file": str(account.ca_file),
        }
        argv = [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(settings)]
        self._program = Program("slixmpp", argv, self.home, terminal=False, env={"PYTHONPATH": str(_ROOT)})
        self._program.wait_until(lambda: "started" in self._states(), "its session")

    def _lines(self) -> list[dict[str, str]]:
        assert self._program is not None, "not started"
        return [json.loads(line) for line in self._program.output.splitlines() if line.startswith("{")]

    def _states(self) -> list[str]:
        return [line["state"] for line in self._lines() if "state" in line]

    def send(self, to: str, text: str) -> None:
        assert self._program is not None, "not started"
        sent = self._states().count("sent")
        self._program.type(json.dumps({"to": to, "text": text}) + "\n")
        self._program.wait_until(lambda: self._states().count("sent") > sent, "the text on its way")

    def received(self) -> list[Received]:
        return [Received(bare_address(line["from"]), line["text"]) for line in self._lines() if "from" in line]

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        assert self._program is not None, "not started"
        wanted = Received(sender, text)
        self._program.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop()


def _say(line: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _run(settings: dict[str, Any]) -> None:
    import slixmpp

    client = slixmpp.ClientXMPP(settings["jid"], settings["password"])
    client.ca_certs = settings["ca_file"]
    client.enable_direct_tls, client.enable_starttls = settings["direct_tls"], not settings["direct_tls"]
    client.enable_plaintext = False
    client.ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    for plugin in ("xep_0030", "xep_0115", "xep_0198", "xep_0199", "xep_0280", "xep_0184"):
        client.register_plugin(plugin)

    async def started(_: object) -> None:
        await client.get_roster()
        client.send_presence()
        _say({"state": "started"})

    def arrived(message: Any) -> None:
        if message["type"] in ("chat", "normal") and message["body"]:
            _say({"from": str(message["from"]), "text": message["body"]})

    client.add_event_handler("session_start", started)
    client.add_event_handler("message", arrived)
    client.add_event_handler("failed_all_auth", lambda _: _say({"state": "refused"}))
    client.connect(settings["host"], settings["port"])
    orders = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        client.send_message(mto=order["to"], mbody=order["text"], mtype="chat")
        _say({"state": "sent"})


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
