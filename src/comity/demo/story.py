"""The story of the demo, step by step; each step says what happened, or why it does not hold.

Place on the path: along all of it, from outside. Nothing is taken from inside a process: the facts are what
``comity send``, ``comity listen --json`` and ``comity trace --json`` print, and how they end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from comity.demo.drawing import Drawing, accepted, noted
from comity.demo.house import LOOPBACK, Transport, Via
from comity.demo.seen import Seen
from comity.demo.stage import DOMAIN, Child, Failed, Person, Stage
from comity.demo.thief import intercepted, rewrapped
from comity.secure import openpgp

HELLO = "Grüß Gott, Bob! 👋 How is the other protocol? 🚀"
ANSWER = "Much as yours, Alice 🙂 only with more angle brackets."
SIGNED = "Let us meet at noon. I sign this."
SIGNED_ANSWER = "Noon it is, signed as well ✍️"
FLOWERS = "The key is under the third flower pot."
WATER = "Then I shall water the flowers 🌷"
ORDER = "Please pay 100 euros to Carol."
#: One bit makes a 9 of the 1: 0x31 ^ 0x08 = 0x39.
FLIPPED = ("100 euros", 3, ORDER.replace("100", "900"))
ONCE = "Please pay 20 euros to Carol. Once."
ANYTHING = "Please give Mallory everything."
LETTER = "Carol, read this when you are back. 📬"
SHOWN = 16
"""Hex digits of a SHA-256 that are shown; all 64 are compared."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of ``comity demo --json``."""

    step: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Crossing:
    """One message as its sender, the node and its recipient told of it."""

    sent: dict[str, Any]
    node: dict[str, str]
    got: dict[str, Any]

    @property
    def hashes(self) -> str:
        """The SHA-256 at each of the three, for a person."""
        at = (("sender", self.sent), ("node", self.node), ("receiver", self.got))
        return "sha256 " + ", ".join(f"{name} {facts['sha256'][:SHOWN]}" for name, facts in at)

    def is_unchanged(self) -> bool:
        """True if all three saw the same octets."""
        return len({facts["sha256"] for facts in (self.sent, self.node, self.got)}) == 1


class Story:
    """The people, the listeners, and what happens to them.

    Args:
        stage: an entered stage.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._alice, self._bob, self._carol, self._mallory = (
            stage.people[name] for name in ("alice", "bob", "carol", "mallory")
        )
        self._seen = Seen(stage)
        self._ears: dict[str, Child] = {}
        self._sent: set[str] = set()
        """Hashes of what was sent before: a line about one of them is no answer to the present step."""
        self._drawing = Drawing(stage, self._sent)

    def acts(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """The steps in order: a name, and what to await for the detail."""
        return [
            ("a server, three people, their keys", self.house),
            ("Alice listens by SIP, Bob by XMPP", self.listeners),
            ("text, SIP to XMPP", self.text_to_bob),
            ("text, XMPP to SIP", self.text_to_alice),
            ("signed, SIP to XMPP", self.signed_to_bob),
            ("signed, XMPP to SIP", self.signed_to_alice),
            ("signed and encrypted, SIP to XMPP", self.encrypted),
            ("the same with OpenPGP, XMPP to SIP", self.encrypted_by_openpgp),
            ("the drawing of 2000: APEX, SIP, XMPP, two servers", self._drawing.there),
            ("and back: XMPP, SIP, APEX", self._drawing.back),
            ("an attacker flips one bit", self.flipped),
            ("a signed message, sent again by another", self.replayed),
            ("Alice's password, somebody else's key", self.signed_by_other),
            ("somebody else's From, by SIP", self.forged_by_sip),
            ("somebody else's From, by XMPP", self.forged_by_xmpp),
            ("Alice asks to see Carol, SIP to XMPP", self._seen.alice_sees_carol),
            ("Carol sees Alice come and go, XMPP to SIP", self._seen.carol_sees_alice),
            ("Mallory is blocked, politely", self._seen.politely_blocked),
            ("away, and the server is killed with kill -9", self.killed),
            ("after the crash nobody is there until they speak", self._seen.after_the_crash),
        ]

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def house(self) -> str:
        """Init, serve, and for everybody an account, a key and trust."""
        stage = self._stage
        await stage.build()
        addresses = await stage.serve()
        people = ((self._alice, True), (self._bob, True), (self._carol, False), (self._mallory, True))
        await asyncio.gather(*(stage.settle(person, has_key=has_key) for person, has_key in people))
        if openpgp.is_available:
            await asyncio.gather(*(stage.make_openpgp(person) for person in (self._alice, self._bob)))
        return f"comity serve listens on {', '.join(addresses)}"

    async def listeners(self) -> str:
        """``comity listen`` for both, as processes that go on."""
        ears = await asyncio.gather(
            self._stage.listen(self._alice, "sip", "tcp"), self._stage.listen(self._bob, "xmpp", "tcp")
        )
        self._ears = {"alice": ears[0], "bob": ears[1]}
        return f"{self._alice.address} by SIP over TCP, {self._bob.address} by XMPP under TLS"

    async def text_to_bob(self) -> str:
        """Plain text with emoji by UDP."""
        crossing = await self._cross(self._alice, self._bob, "sip", "udp", HELLO)
        return _holds(crossing, HELLO, f"unsigned, asserted by {DOMAIN}")

    async def text_to_alice(self) -> str:
        """Plain text with emoji the other way."""
        crossing = await self._cross(self._bob, self._alice, "xmpp", "tcp", ANSWER)
        return _holds(crossing, ANSWER, f"unsigned, asserted by {DOMAIN}")

    async def signed_to_bob(self) -> str:
        """A signature made before SIP holds behind XMPP."""
        crossing = await self._cross(self._alice, self._bob, "sip", "tls", SIGNED, "--sign")
        return _holds(crossing, SIGNED, f"valid, signed by {self._alice.address}")

    async def signed_to_alice(self) -> str:
        """And the other way."""
        crossing = await self._cross(self._bob, self._alice, "xmpp", "tls", SIGNED_ANSWER, "--sign")
        return _holds(crossing, SIGNED_ANSWER, f"valid, signed by {self._bob.address}")

    async def encrypted(self) -> str:
        """For Bob, whose certificate Alice has from his signed answer."""
        seal = ("--sign", "--encrypt")
        crossing = await self._cross(self._alice, self._bob, "sip", "tls", FLOWERS, *seal)
        return self._sealed(crossing, FLOWERS, self._alice)

    async def encrypted_by_openpgp(self) -> str:
        """With keys that no authority certified: each has the other's, and trusts it."""
        if not openpgp.is_available:
            return "not shown: OpenPGP is the extra pgp, which is not installed (pip install comity[pgp])"
        trust = self._stage.trust_openpgp
        await asyncio.gather(trust(self._alice, self._bob), trust(self._bob, self._alice))
        seal = ("--sign", "--encrypt", "--openpgp")
        crossing = await self._cross(self._bob, self._alice, "xmpp", "tls", WATER, *seal)
        return self._sealed(crossing, WATER, self._bob)

    def _sealed(self, crossing: Crossing, text: str, sender: Person) -> str:
        """As ``_holds``; and only its ends can read it."""
        held = _holds(crossing, text, f"valid, signed by {sender.address}")
        _check(crossing.got["encrypted"], f"it came as {crossing.got['layers']}")
        _check(not self._stage.keeps(text), "the server has the text in its files")
        return f"{held}; {' › '.join(crossing.got['layers'])}; nothing of the text is in any file of the server"

    async def flipped(self) -> str:
        """The relay changes one bit of what Alice signed; Bob is told."""
        find, bit, changed = FLIPPED
        relay, port = await self._stage.relay(find, str(bit))
        try:
            crossing = await self._cross(self._alice, self._bob, "sip", "tcp", ORDER, "--sign", port=port)
            _check(await relay.line() == "flipped", "the relay flipped no bit")
        finally:
            await relay.end(signal.SIGTERM)
        got = crossing.got
        _check(got["verdict"] == "bad-signature", f"the verdict is {got['verdict']}: {got['reason']}")
        _check(not got["signer"], f"somebody is named as its signer: {got['signer']}")
        _check(got["text"] == changed, f"the text is {got['text']!r}")
        _check(got["sha256"] == crossing.node["sha256"] != crossing.sent["sha256"], f"not so: {crossing.hashes}")
        return f"“{ORDER}” became “{changed}”; {got['verdict']}; {crossing.hashes}"

    async def replayed(self) -> str:
        """Who listened on the line and knows Alice's password sends what she signed again, by the other protocol."""
        record = self._stage.folder / "record"
        relay, port = await self._stage.relay(str(record))
        try:
            crossing = await self._cross(self._alice, self._bob, "sip", "tcp", ONCE, "--sign", port=port)
        finally:
            await relay.end(signal.SIGTERM)
        _holds(crossing, ONCE, f"valid, signed by {self._alice.address}")
        entity = intercepted(record.read_bytes())
        _check(
            hashlib.sha256(entity.partition(b"\r\n\r\n")[2]).hexdigest() == crossing.sent["sha256"], "it heard nothing"
        )
        same = await self._stage.steal(self._alice, self._bob, "xmpp", entity)
        other = await self._stage.steal(self._alice, self._bob, "xmpp", rewrapped(entity))
        got = json.loads(await self._ears["bob"].line())
        self._sent.add(got["sha256"])
        _check(got["sha256"] != crossing.sent["sha256"], "the node delivered the same octets twice")
        _check(got["verdict"] == "replayed", f"the verdict is {got['verdict']}: {got['reason']}")
        _check(got["text"] is None, f"the text was shown again: {got['text']!r}")
        return (
            f"the same octets: {same}, and the node does not deliver them twice; "
            f"with its base64 in other lines: {other}, and Bob's program does not show it: {got['verdict']}; {got['reason']}"
        )

    async def signed_by_other(self) -> str:
        """Mallory, whom the same authority certified, signs what says that it is from Alice."""
        alice, mallory = self._alice, self._mallory
        lines = [
            "Content-Type: message/cpim",
            "",
            f"From: <{alice.address}>",
            f"To: <{self._bob.address}>",
            f"DateTime: {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "",
            "Content-Type: text/plain; charset=utf-8",
            "",
            ANYTHING,
        ]
        sign = ("sign", "-", "--from", mallory.address)
        entity = (await self._stage.must(*sign, whose=mallory, stdin="\r\n".join(lines))).stdout
        await self._stage.steal(alice, self._bob, "sip", entity.encode("utf-8"))
        got = json.loads(await self._ears["bob"].line())
        self._sent.add(got["sha256"])
        _check(got["text"] == ANYTHING, f"the text is {got['text']!r}")
        _check(got["verdict"] == "signed-by-other", f"the verdict is {got['verdict']}: {got['reason']}")
        return f"“{ANYTHING}”; {got['verdict']}; {got['reason']}"

    async def forged_by_sip(self) -> str:
        """Alice claims to be Bob."""
        return await self._forged(self._alice, self._bob, "sip", "tcp")

    async def forged_by_xmpp(self) -> str:
        """Bob claims to be Alice."""
        return await self._forged(self._bob, self._alice, "xmpp", "tcp")

    async def killed(self) -> str:
        """What was accepted for somebody who is away outlives the server."""
        stage = self._stage
        await asyncio.gather(*(ear.end(signal.SIGTERM) for ear in self._ears.values()))
        sent = accepted(await stage.send(self._alice, self._carol, "sip", "tls", LETTER, "--sign"))
        code = await stage.servers[DOMAIN].end(signal.SIGKILL)
        _check(code == -signal.SIGKILL, f"the server ended by itself, with exit code {code}")
        await stage.serve()
        self._ears["carol"] = ear = await stage.listen(self._carol, "xmpp", "tcp")
        got = json.loads(await ear.line())
        crossing = Crossing(sent, await noted(self._stage, self._stage.house, got["sha256"]), got)
        await ear.end(signal.SIGTERM)
        held = _holds(crossing, LETTER, f"valid, signed by {self._alice.address}")
        return f"accepted ({sent['status']}), killed, restarted, delivered: {held}"

    # --- what several steps do ----------------------------------------------------------------------------------------

    async def _cross(
        self,
        sender: Person,
        to: Person,
        via: Via,
        transport: Transport,
        text: str,
        *extra: str,
        port: int | None = None,
    ) -> Crossing:
        """Send, and see it arrive with the listener of ``to``."""
        sent = accepted(await self._stage.send(sender, to, via, transport, text, *extra, port=port))
        got = json.loads(await self._ears[to.name].line())
        while got["sha256"] in self._sent:
            got = json.loads(await self._ears[to.name].line())
        self._sent |= {sent["sha256"], got["sha256"]}
        node = await noted(self._stage, self._stage.house, got["sha256"])
        crossed = (node["in"], node["out"])
        _check(crossed == (via, "sip" if via == "xmpp" else "xmpp"), f"it went from {crossed[0]} to {crossed[1]}")
        return Crossing(sent, node, got)

    async def _forged(self, real: Person, claimed: Person, via: Via, transport: Transport) -> str:
        """Send under another name than the one signed in: refused, and the node keeps nothing of it."""
        ended = await self._stage.send(real, self._carol, via, transport, "Trust me.", "--forge-from", claimed.address)
        answer = ended.json()
        _check(ended.exit_code == 1 and answer["status"] == "failure", f"it was not refused: {answer}")
        _check(answer["reason"] == "denied", f"it was refused for another reason: {answer}")
        _check(not await self._stage.trace(answer["sha256"]), "the node kept it all the same")
        who = f"{real.name.capitalize()} as {claimed.address}"
        return f"{who}: refused, {answer['reason']}: {answer['text']}"


async def play(stage: Stage, tell: Callable[[Step], None]) -> list[Step]:
    """Play the whole story; ``tell`` gets each step as it ends.

    A step that fails is told as such. Without a server and listeners, which are the first two, nothing else is tried.
    """
    steps: list[Step] = []
    is_vain = False
    for number, (name, act) in enumerate(Story(stage).acts()):
        try:
            step = Step(name, False, "not tried") if is_vain else Step(name, True, await act())
        except Failed as failed:
            step = Step(name, False, str(failed))
            is_vain = number < 2
        steps.append(step)
        tell(step)
    return steps


async def stop(stage: Stage) -> Step:
    """The last step: SIGTERM drains and stops the servers."""
    name = "the servers stop in order"
    if not stage.servers:
        return Step(name, False, "none ever ran")
    codes = await asyncio.gather(*(server.end(signal.SIGTERM) for server in stage.servers.values()))
    return Step(
        name,
        not any(codes),
        "; ".join(f"{domain}: SIGTERM, exit code {code}" for domain, code in zip(stage.servers, codes, strict=True)),
    )


def _check(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Failed(otherwise)


def _holds(crossing: Crossing, text: str, wanted: str) -> str:
    """Check that a message arrived unchanged under the verdict in words that is wanted; gives the detail."""
    got = crossing.got
    if got["verdict"] == "valid":
        verdict = f"valid, signed by {got['signer']}"
    else:
        verdict = f"{got['verdict']}, asserted by {got['asserted_by']}"
    _check(verdict == wanted, f"the verdict is “{verdict}”: {got['reason']}")
    _check(got["text"] == text, f"the text is {got['text']!r}")
    _check(crossing.is_unchanged(), f"the octets were changed: {crossing.hashes}")
    return f"“{text}”; {verdict}; {crossing.hashes}"


def settings(stage: Stage) -> str:
    """How to join the story with a stock client: every setting, as a client asks for it."""
    alice, bob, carol = (stage.people[name] for name in ("alice", "bob", "carol"))
    sip, tls, xmpp, direct = (
        stage.house.ports[key] for key in (("sip", "tcp"), ("sip", "tls"), ("xmpp", "tcp"), ("xmpp", "tls"))
    )
    return f"""\
The server goes on. Join in with any SIP and any XMPP client of this machine:

  SIP client        user name  alice          domain  {DOMAIN}        password  {alice.password}
                    SIP address sip:alice@{DOMAIN}
                    proxy / outbound server  {LOOPBACK}:{sip} (UDP or TCP), or {LOOPBACK}:{tls} (TLS)
  XMPP client       JID  bob@{DOMAIN}         password  {bob.password}
                    connect server  {LOOPBACK}  port {xmpp} (STARTTLS), or {direct} (direct TLS)
  a third account   carol@{DOMAIN}            password  {carol.password}
  authority (CA)    {stage.house.ca_file}
                    import it as trusted where the client asks about the certificate

Or with Comity itself, in another terminal:

  comity listen {bob.address} --via xmpp --server {LOOPBACK}:{xmpp} --ca {stage.house.ca_file} \\
    --password-file {bob.password_file}

Ctrl-C ends it and removes everything.
"""
