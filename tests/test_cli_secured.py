"""Two people, ``comity send`` and ``comity listen``, a real server between: signed, sealed, remembered (SEC-20, SEC-23, SEC-38)."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comity.demo.house import Via
from comity.demo.stage import Ended, Person, Stage

PATHS: list[tuple[Via, Via]] = [("sip", "xmpp"), ("xmpp", "sip")]


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[Stage]:
    """A server with accounts for Alice and Bob, who have no keys yet and trust nobody's."""
    async with Stage(folder) as stage:
        await stage.build()
        for name in ("alice", "bob"):
            person = stage.people[name]
            person.home.mkdir(mode=0o700)
            person.password_file.touch(mode=0o600)
            person.password_file.write_text(person.password + "\n")
            account = ("account", "add", person.address, "--password-stdin", "-c", str(stage.house.config))
            await stage.must(*account, stdin=person.password + "\n")
        await stage.serve()
        yield stage


async def received(stage: Stage, person: Person, via: Via) -> dict[str, object]:
    """What ``comity listen`` shows of the one message that waits."""
    options = stage._sign_in(person, via, "tls", None)
    ended = await stage.must("listen", person.address, *options, "--count", "1", "--timeout", "30", whose=person)
    line: dict[str, object] = json.loads(ended.stdout)
    return line


async def sent(stage: Stage, person: Person, to: Person, via: Via, text: str, *extra: str) -> Ended:
    return await stage.send(person, to, via, "tls", text, *extra)


@pytest.mark.parametrize(("alices", "bobs"), PATHS)
@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_request_a_signed_answer_then_an_encrypted_message(tmp_path: Path, alices: Via, bobs: Via, kind: str) -> None:
    """SEC-20, RFC 3923 section 6.2: "requesting that recipient's certificate in a signed return message"."""

    async def story() -> None:
        async with house(tmp_path) as stage:
            alice, bob = stage.people["alice"], stage.people["bob"]
            for person in (alice, bob):
                await stage.must("keys", "new", person.address, "--kind", kind, "--no-passphrase", whose=person)
            early = await sent(stage, alice, bob, alices, "secret", "--sign", "--encrypt")
            assert early.exit_code == 2, "there is nothing to encrypt for"
            await sent(stage, alice, bob, alices, "Please answer with a signed message.", "--sign")
            asked = await received(stage, bob, bobs)
            assert (asked["verdict"], asked["contact"]) == ("untrusted", "first contact")
            await sent(stage, bob, alice, bobs, "Here I am.", "--sign")
            answer = await received(stage, alice, alices)
            assert (answer["verdict"], answer["contact"]) == ("untrusted", "first contact")
            told = await sent(stage, alice, bob, alices, "secret", "--encrypt", "--sign")
            assert "comity keys trust" in told.stderr
            # They read the fingerprints to each other on the telephone.
            await stage.must("keys", "trust", str(answer["fingerprint"]), whose=alice)
            await stage.must("keys", "trust", str(asked["fingerprint"]), whose=bob)
            done = await sent(stage, alice, bob, alices, "The launch is at noon.", "--sign", "--encrypt")
            assert done.exit_code == 0, done.stderr
            letter = await received(stage, bob, bobs)
            assert (letter["verdict"], letter["signer"], letter["text"], letter["encrypted"]) == (
                "valid",
                alice.address,
                "The launch is at noon.",
                True,
            )
            assert str(letter["contact"]).startswith("same key as since ")
            assert letter["sha256"] == done.json()["sha256"], "the octets are those that left her machine"
            assert (alice.home / "clock" / f"{alice.address[3:]}.txt").exists(), "SEC-23: her next time will be later"

    asyncio.run(story())


def test_a_changed_key_is_announced_to_who_listens(tmp_path: Path) -> None:
    """T33, over a server: Alice's account is taken over, and whoever has it makes a new key."""

    async def story() -> None:
        async with house(tmp_path) as stage:
            alice, bob = stage.people["alice"], stage.people["bob"]
            await stage.must("keys", "new", alice.address, "--no-passphrase", whose=alice)
            await sent(stage, alice, bob, "sip", "hello", "--sign")
            first = await received(stage, bob, "xmpp")
            await stage.must("keys", "trust", str(first["fingerprint"]), whose=bob)
            await stage.must("keys", "new", alice.address, "--replace", "--no-passphrase", whose=alice)
            await sent(stage, alice, bob, "sip", "send money", "--sign")
            second = await received(stage, bob, "xmpp")
            assert second["verdict"] == "changed"
            assert str(first["fingerprint"])[:16] in str(second["contact"])
            await sent(stage, alice, bob, "sip", "please", "--sign")
            assert (await received(stage, bob, "xmpp"))["verdict"] == "changed", "told again, not got used to"
            await stage.must("keys", "trust", str(second["fingerprint"]), whose=bob)
            await sent(stage, alice, bob, "sip", "it was me", "--sign")
            assert (await received(stage, bob, "xmpp"))["verdict"] == "valid"

    asyncio.run(story())


def test_openpgp_travels_as_well_and_protection_is_forced_on_nobody(tmp_path: Path) -> None:
    """SEC-38: Bob has no key at all; what is signed, and what is not, reaches him."""

    async def story() -> None:
        async with house(tmp_path) as stage:
            alice, bob = stage.people["alice"], stage.people["bob"]
            await sent(stage, alice, bob, "sip", "plain")
            assert (await received(stage, bob, "xmpp"))["verdict"] == "unsigned"
            for person in (alice, bob):
                new = ("keys", "new", person.address, "--kind", "openpgp", "--no-passphrase")
                await stage.must(*new, whose=person)
                file = str(tmp_path / f"{person.name}.asc")
                await stage.must("keys", "export", person.address, "--form", "openpgp", "-o", file, whose=person)
            await stage.must("keys", "trust", str(tmp_path / "bob.asc"), whose=alice)
            await stage.must("keys", "trust", str(tmp_path / "alice.asc"), whose=bob)
            done = await sent(stage, alice, bob, "sip", "sealed", "--openpgp", "--sign", "--encrypt")
            assert done.exit_code == 0, done.stderr
            letter = await received(stage, bob, "xmpp")
            assert (letter["verdict"], letter["text"], letter["encrypted"]) == ("valid", "sealed", True)

    asyncio.run(story())


@pytest.mark.parametrize(("alices", "bobs"), [*PATHS, ("sip", "sip"), ("xmpp", "xmpp")])
def test_what_the_recipient_cannot_open_comes_back_to_the_sender_with_the_reason(
    tmp_path: Path, alices: Via, bobs: Via
) -> None:
    """T8, SEC-27, GW-12: Bob lost his key and made a new one. Both are away while the other is there; each protocol has its own words."""

    async def story() -> None:
        async with house(tmp_path) as stage:
            alice, bob = stage.people["alice"], stage.people["bob"]
            certificate = tmp_path / "bob.pem"
            await stage.must("keys", "new", bob.address, "--no-passphrase", whose=bob)
            await stage.must("keys", "export", bob.address, "-o", str(certificate), whose=bob)
            await stage.must("keys", "trust", str(certificate), whose=alice)
            password = bob.password_file.read_text()
            shutil.rmtree(bob.home)
            bob.home.mkdir(mode=0o700)
            bob.password_file.touch(mode=0o600)
            bob.password_file.write_text(password)
            await stage.must("keys", "new", bob.address, "--no-passphrase", whose=bob)
            done = await sent(stage, alice, bob, alices, "The launch is at noon.", "--encrypt")
            assert done.exit_code == 0, "it is stored: nobody there could have looked at it"
            letter = await received(stage, bob, bobs)
            assert (letter["verdict"], letter["action"], letter["text"]) == ("no-key", "refuse", None)
            options = stage._sign_in(alice, alices, "tls", None)
            told = await stage.run("listen", alice.address, *options, "--count", "1", "--timeout", "5", whose=alice)
            assert f"not delivered to {bob.address}: decryption" in told.stderr
            assert told.stdout == "", "a report is no message"

    asyncio.run(story())
