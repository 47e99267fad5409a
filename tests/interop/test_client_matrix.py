"""Every stock client through a user's day: what waited, several devices, signed texts, typing, a server that goes away.

Evidence for OPS-16, GW-1, GW-2 and IMDN-13 to IMDN-15 with peers nobody here wrote. What each is held to stands in ``behaviour.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Status
from comity.secure import new_identity
from comity.secure.sealing import encrypt
from tests.interop.behaviour import BEHAVIOUR, PAGE, SIP_NOTE, UNREAD_NOTE, XMPP_NOTE, page
from tests.interop.catalogue import CLIENTS
from tests.interop.clients import Received, StockClient
from tests.interop.conftest import client_for
from tests.interop.server import ComityServer

EVERY_SEAT = [(name, transport) for name, kind in CLIENTS.items() for transport in kind.transports]
ONE_SEAT = [(name, kind.transports[-1]) for name, kind in CLIENTS.items()]
"""Each client by its best transport."""


class Town:
    """A running server, two people who are always there (one a protocol), and those who sign in for a test."""

    def __init__(self, server: ComityServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._homes = 0
        self.friends: list[StockClient] = []
        for name in ("slixmpp", "pjsua"):
            self.friends.append(self.sign_in(name, CLIENTS[name].transports[-1], server.new_account("friend")))

    def friend_beyond(self, client: type[StockClient]) -> StockClient:
        """The friend who uses the other protocol."""
        return next(friend for friend in self.friends if friend.protocol != client.protocol)

    def friend_beside(self, client: type[StockClient]) -> StockClient:
        """The friend who uses the same protocol."""
        return next(friend for friend in self.friends if friend.protocol == client.protocol)

    def sign_in(self, name: str, transport: str, address: str) -> StockClient:
        self._homes += 1
        contacts = [friend.sign_in.address for friend in self.friends]
        client = client_for(self.server, self._folder / f"home{self._homes}", name, transport, address, *contacts)
        self._stack.callback(client.stop)
        client.start()
        return client

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """Whoever signs in meanwhile leaves at the end."""
        kept, self._stack = self._stack, contextlib.ExitStack()
        try:
            with self._stack:
                yield
        finally:
            self._stack = kept

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def town(comity_server: ComityServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with contextlib.closing(Town(comity_server, tmp_path_factory.mktemp("town"))) as made:
        yield made


def shown_from(client: StockClient, sender: StockClient) -> list[str]:
    return [received.text for received in client.received() if received.sender == sender.sign_in.address]


@pytest.mark.peer
@pytest.mark.parametrize(("name", "transport"), EVERY_SEAT)
def test_texts_that_waited_are_shown_once_and_in_order_at_sign_in(town: Town, name: str, transport: str) -> None:
    address, sender = town.server.new_account("sleeper"), town.friend_beyond(CLIENTS[name])
    texts = [f"{count} waited" for count in ("first", "second", "third")]
    for text in texts:
        sender.send(address, text)
    town.server.wait_queued(address, len(texts))
    with town.visit():
        client = town.sign_in(name, transport, address)
        client.wait_received(sender.sign_in.address, texts[-1])
        assert client.received() == [Received(sender.sign_in.address, text) for text in texts]


@pytest.mark.peer
@pytest.mark.parametrize(("name", "transport"), ONE_SEAT)
def test_every_device_of_an_account_shows_a_text_once(town: Town, name: str, transport: str) -> None:
    """docs/project/decisions.md: each device has a copy of its own, whichever protocol it uses."""
    address = town.server.new_account("busy")
    with town.visit():
        devices = [
            town.sign_in(name, transport, address),
            town.sign_in("twinkle", "tcp", address),
            town.sign_in("libpurple", "starttls", address),
        ]
        for friend in town.friends:
            friend.send(address, "to every device")
        for device in devices:
            for friend in town.friends:
                device.wait_received(friend.sign_in.address, "to every device")
            assert len(device.received()) == len(town.friends)


@pytest.mark.peer
@pytest.mark.parametrize(("name", "transport"), [seat for seat in ONE_SEAT if CLIENTS[seat[0]].shows_copies])
def test_what_the_same_user_sends_from_a_phone_is_shown_too(town: Town, name: str, transport: str) -> None:
    """XEP-0280, whatever protocol the other device uses."""
    address = town.server.new_account("nomad")
    with town.visit():
        desk = town.sign_in(name, transport, address)
        for phone in (town.sign_in("twinkle", "tcp", address), town.sign_in("slixmpp", "tls", address)):
            for friend in town.friends:
                phone.send(friend.sign_in.address, f"by {phone.name} to {friend.name}")
                friend.wait_received(address, f"by {phone.name} to {friend.name}")
                desk.wait_copy(f"by {phone.name} to {friend.name}")
        assert desk.received() == []


@pytest.mark.peer
@pytest.mark.parametrize(("name", "transport"), EVERY_SEAT)
def test_a_signed_text_is_shown_with_what_is_not_proved(town: Town, name: str, transport: str) -> None:
    """design.md section 2, GW-2: no client here knows objects, and none is harmed by one."""
    address, signer = town.server.new_account("reader"), town.friends[0]
    with town.visit():
        client = town.sign_in(name, transport, address)
        town.server.signed_text(signer.sign_in.address, address, "Signed, sealed")
        note = SIP_NOTE if client.protocol == "sip" else XMPP_NOTE
        client.send(signer.sign_in.address, "still here")
        signer.wait_received(address, "still here")
        signer.send(address, "after it")
        client.wait_received(signer.sign_in.address, "after it")
        signed, after = shown_from(client, signer)
        assert (signed.rstrip("\n"), after) == (f"Signed, sealed\n\n{note}", "after it")


@pytest.mark.peer
@pytest.mark.parametrize(("name", "transport"), EVERY_SEAT)
def test_an_encrypted_text_is_refused_or_said_to_be_encrypted(town: Town, name: str, transport: str) -> None:
    """G-03, XMPP-25, T8: no client here knows the forms; the sender is told, nothing else is shown, what follows arrives."""
    address, sender = town.server.new_account("locked"), town.friends[0]
    people = Address.parse(f"im:{sender.sign_in.address}"), Address.parse(f"im:{address}")
    key = new_identity(people[1], when=datetime.now(UTC)).certificates
    sealed = encrypt(text_object(*people, "Nobody else"), key, encoding="base64")
    control = "--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--b\r\n"
    octets = f"{control}Content-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\n--b--\r\n"
    pgp = MimeObject.of('multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b', octets.encode())
    with town.visit():
        client = town.sign_in(name, transport, address)
        sender.send(address, "before it")
        client.wait_received(sender.sign_in.address, "before it")
        noted = []
        for thing in (sealed, encrypt(text_object(*people, "Nobody else"), key), pgp):
            response = town.server.send_object(sender.sign_in.address, address, thing)
            if "statement" in BEHAVIOUR[name].encrypted and thing.header("content-transfer-encoding") != "binary":
                assert response.status is Status.SUCCESS
                noted.append(UNREAD_NOTE)
            else:
                too_large = transport == "udp" and len(thing.octets) > 700
                assert response.status is Status.FAILURE
                assert response.reason is Reason.CONTENT or (too_large and response.reason is Reason.SIZE)
        sender.send(address, "after it")
        client.wait_received(sender.sign_in.address, "after it")
        assert shown_from(client, sender) == ["before it", *noted, "after it"]


@pytest.mark.peer
@pytest.mark.parametrize(("name", "transport"), ONE_SEAT)
def test_typing_and_receipts_reach_who_knows_them_and_show_nobody_else_anything(
    town: Town, name: str, transport: str
) -> None:
    """IMDN-13 to IMDN-15: by SIP and by XMPP alike, each in its own way; to clients without they leave no trace."""
    address = town.server.new_account("typist")
    beside, beyond = town.friend_beside(CLIENTS[name]), town.friend_beyond(CLIENTS[name])
    with town.visit():
        client = town.sign_in(name, transport, address)
        for friend in (beside, beyond):
            friend.send(address, "hello")
            client.wait_received(friend.sign_in.address, "hello")
            friend.tell_typing(address)
            friend.send(address, "typed")
            client.wait_received(friend.sign_in.address, "typed")
            if client.tells_typing:
                client.tell_typing(friend.sign_in.address)
            client.send(friend.sign_in.address, "answered")
            friend.wait_received(address, "answered")
        assert len(client.received()) == 4
        for friend in (beside, beyond):
            assert shown_from(client, friend) == ["hello", "typed"]
            assert shown_from(friend, client) == ["answered"]
        if "typing" in client.shows:
            for friend in (beside, beyond):
                client.wait_notice("typing", friend.sign_in.address)
            assert client.notices("typing") == [friend.sign_in.address for friend in (beside, beyond)]
        if client.tells_typing:
            for friend in (beside, beyond):
                friend.wait_notice("typing", address)
        if BEHAVIOUR[name].receipts != "none":
            town.friends[0].wait_notice("receipt", address)


@pytest.mark.peer
@pytest.mark.parametrize("transport", CLIENTS["pjsua"].transports)
def test_a_text_longer_than_pjsip_reads_is_refused_and_holds_up_nothing(town: Town, transport: str) -> None:
    """COMPAT PJSIP: it throws such a request away with what comes behind it; sent again, that would go on for days."""
    address, sender = town.server.new_account("brief"), town.friend_beyond(CLIENTS["pjsua"])
    sender.send(address, "x" * 5_000)
    sender.send(address, "y" * (600 if transport == "udp" else CLIENTS["pjsua"].limits.show_octets))
    town.server.wait_queued(address, 2)
    with town.visit():
        client = town.sign_in("pjsua", transport, address)
        sender.send(address, "short")
        client.wait_received(sender.sign_in.address, "short")
        assert [text[0] for text in shown_from(client, sender)] == ["y", "s"]
        sender.wait_notice("refused", address)
        assert sender.notices("refused").count(address) == 1


@pytest.mark.peer
def test_every_client_comes_back_to_a_server_that_was_killed_or_restarted(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both at once, since some clients wait a minute before they try again. Nothing is lost, doubled or out of order."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for fate in ("killed", "restarted"):
            servers[fate] = server = ComityServer(tmp_path_factory.mktemp(fate))
            stack.callback(server.stop)
            server.start()
        clients: dict[tuple[str, str, str], StockClient] = {}
        senders = {fate: server.new_account("sender") for fate, server in servers.items()}
        for fate, server in servers.items():
            for name, kind in CLIENTS.items():
                transport = kind.transports[-1 if fate == "killed" else 0]
                home = tmp_path / f"{fate}-{name}"
                client = client_for(server, home, name, transport, server.new_account("guest"), senders[fate])
                stack.callback(client.stop)
                client.start()
                clients[fate, name, transport] = client
        servers["killed"].kill()
        servers["restarted"].stop()
        for fate, server in servers.items():
            server.serve()
            sender = client_for(server, tmp_path / fate, "slixmpp", "tls", senders[fate])
            stack.callback(sender.stop)
            sender.start()
            for (its_fate, _, _), client in clients.items():
                if its_fate == fate:
                    sender.send(client.sign_in.address, "one")
                    sender.send(client.sign_in.address, "two")
        for (fate, name, used), client in clients.items():
            if used in BEHAVIOUR[name].by_hand:
                client.sign_in_again()
            client.wait_received(senders[fate], "two", 90)
            assert [received.text for received in client.received()] == ["one", "two"]


def test_the_reference_page_says_what_is_held_to_here() -> None:
    assert page() == PAGE.read_text(), "write it anew: python -m tests.interop.behaviour"


def test_every_client_has_its_line() -> None:
    assert BEHAVIOUR.keys() == CLIENTS.keys()
    for name, behaviour in BEHAVIOUR.items():
        assert behaviour.by_hand <= set(CLIENTS[name].transports)
