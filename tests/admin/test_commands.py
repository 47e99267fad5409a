"""Administrative acts: the rules of accounts and queues, over a store in memory (design.md section 4)."""

from __future__ import annotations

import hashlib

import pytest

from comity.admin.commands import Commands, PlainRecords
from comity.admin.requests import (
    Account,
    AccountPolicy,
    AddAccount,
    AnyRequest,
    CommandRefused,
    DropMessage,
    ListAccounts,
    ListQueues,
    RemoveAccount,
    RetryQueue,
    SetPassword,
    SetPolicy,
    ShowQueue,
    Trace,
)
from comity.cpim.address import Address
from comity.cpim.operations import Requirement
from comity.errors import StoreError
from comity.service.credentials import BadRecord, FailureGuard, PasswordError, StoreAccounts
from comity.service.interfaces import Add, Done, Put, Record
from comity.service.protection import NO_RULE, Rule, unpack_rule
from comity.store.memory import MemoryStore
from tests.loop import in_loop

ALICE = Address.parse("im:alice@example.org")


class Office:
    """Commands over a fresh store, with the accounts a running server would keep."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.accounts = StoreAccounts(self.store, ["example.org"], FailureGuard())
        self.told: list[object] = []
        self.commands = Commands(
            self.store,
            ["example.org"],
            PlainRecords("example.org"),
            changed=self.accounts.forget,
            woken=self.told.append,
            dropped=lambda lane, seq: self.told.append((lane, seq)),
            protected=lambda key, rule: self.told.append((key, rule)),
            can_verify=True,
        )

    async def run(self, request: AnyRequest) -> object:
        return await self.commands.run(request)

    async def queue(self, name: str, lane: str = "inbox/im:alice@example.org") -> Record:
        octets = f"octets of {name}".encode()
        fingerprint = hashlib.sha256(octets).hexdigest()
        record = Record(name, lane, octets, b"", fingerprint, self.store.time() + 3600, (f"call-{name}",))
        assert isinstance((await self.store.commit([Add(record)]))[0], Done)
        return record


class TestAccounts:
    @in_loop
    async def test_an_account_is_added_listed_and_usable_by_every_protocol(self) -> None:
        office = Office()
        added = await office.run(AddAccount("alice@example.org", "secret"))
        assert isinstance(added, Account)
        assert added.address == "alice@example.org"
        assert await office.run(ListAccounts()) == [added]
        credentials = await office.accounts.credentials(ALICE)
        assert credentials is not None
        assert set(credentials.scram) == {"sha-1", "sha-256", "sha-512"}
        assert credentials.ha1["MD5"] == hashlib.md5(b"alice:example.org:secret").hexdigest()

    @in_loop
    async def test_scram_and_ha1_lie_in_separate_spaces_and_neither_holds_the_password(self) -> None:
        office = Office()
        await office.run(AddAccount("alice@example.org", "canary-secret"))
        key = "im:alice@example.org"
        values = [await office.store.get(space, key) for space in ("account", "scram", "ha1")]
        assert all(values)
        assert not any(b"canary" in entry.value for entry in values if entry)

    @in_loop
    async def test_new_passwords_get_the_iterations_the_operator_chose(self) -> None:
        """COMPAT Cyrus SASL: it takes 65,536 at most (docs/howto/connect-your-client.md)."""
        store, alice = MemoryStore(), AddAccount("alice@example.org", "secret")
        await Commands(store, ["example.org"], PlainRecords("example.org"), iterations=65_536).run(alice)
        credentials = await StoreAccounts(store, ["example.org"], FailureGuard()).credentials(ALICE)
        assert credentials is not None
        assert {key.iterations for key in credentials.scram.values()} == {65_536}

    @pytest.mark.parametrize("address", ["im:Alice@EXAMPLE.org", "sip:alice@example.org", "xmpp:alice@example.org"])
    def test_one_account_by_any_name(self, address: str) -> None:
        @in_loop
        async def story() -> None:
            office = Office()
            await office.run(AddAccount("alice@example.org", "secret"))
            with pytest.raises(CommandRefused, match="exists already") as refused:
                await office.run(AddAccount(address, "other"))
            assert refused.value.exit_code == 1

        story()

    @pytest.mark.parametrize(
        ("address", "sentence"),
        [
            ("alice@example.net", "is not served here; this server has example.org"),
            ("alice", "Write it as alice@example.org"),
            ("@example.org", "Write it as alice@example.org"),
            ("a b@example.org", "no account name may have: a space"),
            ("a:b@example.org", "no account name may have"),
            ("comity@example.org", "is reserved"),
            ("Anonymous@example.org", "is reserved"),
            ("apex=presence@example.org", "is reserved"),
        ],
    )
    def test_an_address_that_cannot_have_an_account(self, address: str, sentence: str) -> None:
        @in_loop
        async def story() -> None:
            office = Office()
            with pytest.raises(CommandRefused, match=sentence) as refused:
                await office.run(AddAccount(address, "secret"))
            assert refused.value.exit_code == 2
            assert await office.run(ListAccounts()) == []

        story()

    @in_loop
    async def test_a_bad_password_makes_no_account(self) -> None:
        office = Office()
        with pytest.raises(PasswordError, match="empty"):
            await office.run(AddAccount("alice@example.org", ""))
        assert await office.run(ListAccounts()) == []

    @in_loop
    async def test_a_new_password_is_used_at_once(self) -> None:
        office = Office()
        await office.run(AddAccount("alice@example.org", "old"))
        before = await office.accounts.credentials(ALICE)
        await office.run(SetPassword("alice@example.org", "new"))
        after = await office.accounts.credentials(ALICE)
        assert before is not None
        assert after is not None
        assert before.scram != after.scram
        assert after.ha1["MD5"] == hashlib.md5(b"alice:example.org:new").hexdigest()

    @in_loop
    async def test_sip_can_have_a_password_of_its_own(self) -> None:
        """reliability.md section 6.1 item 4."""
        office = Office()
        await office.run(AddAccount("alice@example.org", "one"))
        before = await office.accounts.credentials(ALICE)
        changed = await office.run(SetPassword("alice@example.org", "phone", sip_only=True))
        after = await office.accounts.credentials(ALICE)
        assert before is not None
        assert after is not None
        assert after.scram == before.scram
        assert after.ha1["MD5"] == hashlib.md5(b"alice:example.org:phone").hexdigest()
        assert isinstance(changed, Account)
        assert changed.own_sip_password
        await office.run(SetPassword("alice@example.org", "all again"))
        accounts = await office.run(ListAccounts())
        assert isinstance(accounts, list)
        assert not accounts[0].own_sip_password

    @in_loop
    async def test_removing_leaves_nothing_for_the_next_owner_of_the_name(self) -> None:
        office = Office()
        await office.run(AddAccount("al@example.org", "secret"))
        await office.run(AddAccount("alice@example.org", "secret"))
        await office.store.commit(
            [Put("contact", "im:alice@example.org/phone", b"x"), Put("contact", "im:alice@example.org2/phone", b"x")]
        )
        await office.queue("m1")
        await office.queue("m2")
        await office.queue("r1", "receipt/apex/im:alice@example.org")
        await office.queue("r2", "receipt/apex/im:al@example.org")
        removed = await office.run(RemoveAccount("alice@example.org"))
        assert getattr(removed, "dropped", None) == 3
        assert len(office.told) == 3
        assert [info.lane for info in await office.store.lanes()] == ["receipt/apex/im:al@example.org"]
        assert not await office.accounts.exists(ALICE)
        assert await office.store.read("inbox/im:alice@example.org", 10) == []
        assert [key for key, _ in await office.store.scan("contact")] == ["im:alice@example.org2/phone"]
        assert len(await office.store.scan("scram")) == len(await office.store.scan("ha1")) == 1
        with pytest.raises(CommandRefused, match="There is no account"):
            await office.run(RemoveAccount("alice@example.org"))
        with pytest.raises(CommandRefused, match="There is no account"):
            await office.run(SetPassword("alice@example.org", "x"))

    @in_loop
    async def test_the_list_is_of_a_domain_or_an_address(self) -> None:
        office = Office()
        for name in ("bob", "alice"):
            await office.run(AddAccount(f"{name}@example.org", "secret"))
        for of, names in {
            "": ["alice", "bob"],
            "Example.org": ["alice", "bob"],
            "bob@example.org": ["bob"],
            "x": [],
        }.items():
            accounts = await office.run(ListAccounts(of))
            assert isinstance(accounts, list)
            assert [account.address.partition("@")[0] for account in accounts] == names

    @in_loop
    async def test_a_damaged_account_is_said_to_be_one(self) -> None:
        office = Office()
        await office.store.commit([Put("account", "im:alice@example.org", b"\xff")])
        with pytest.raises(BadRecord, match="add it anew"):
            await office.run(ListAccounts())


class TestQueues:
    @in_loop
    async def test_lanes_are_listed_and_shown_without_the_messages(self) -> None:
        office = Office()
        record = await office.queue("m1")
        lanes = await office.run(ListQueues())
        assert isinstance(lanes, list)
        assert [(lane.lane, lane.pending, lane.octets) for lane in lanes] == [(record.lane, 1, len(record.entity))]
        for name in (record.lane, "alice@example.org", "im:alice@example.org"):
            items = await office.run(ShowQueue(name))
            assert isinstance(items, list)
            assert [(item.id, item.sha256) for item in items] == [("m1", record.fingerprint)]
            assert "octets of" not in str(items)
        with pytest.raises(CommandRefused, match="comity queue list"):
            await office.run(ShowQueue("bob@example.org"))

    @in_loop
    async def test_retry_wakes_one_lane_or_all(self) -> None:
        office = Office()
        await office.queue("m1")
        await office.queue("m2", "hop/sip:pbx.example")
        woken = office.store.watch("")
        assert getattr(await office.run(RetryQueue("hop/sip:pbx.example")), "lanes", None) == ["hop/sip:pbx.example"]
        assert await anext(woken) == "hop/sip:pbx.example"
        assert office.told == ["hop/sip:pbx.example"]
        assert len(getattr(await office.run(RetryQueue()), "lanes", ())) == 2
        assert len(office.told) == 3

    @in_loop
    async def test_a_dropped_message_is_terminal_and_can_still_be_traced(self) -> None:
        """reliability.md section 5.6: an audited terminal state."""
        office = Office()
        await office.queue("m1")
        await office.queue("m2")
        await office.run(DropMessage("m1"))
        assert office.told == [("inbox/im:alice@example.org", 1)]
        items = await office.store.read("inbox/im:alice@example.org", 10)
        assert [item.record.id for item in items] == ["m2"]
        steps = await office.run(Trace("m1"))
        assert isinstance(steps, list)
        assert "Dropped by the operator" in steps[0].outcome
        with pytest.raises(CommandRefused, match="No waiting message"):
            await office.run(DropMessage("m1"))

    @in_loop
    async def test_a_message_is_traced_by_id_fingerprint_and_native_identifier(self) -> None:
        office = Office()
        record = await office.queue("m1")
        for name in ("m1", record.fingerprint[:8], record.fingerprint, "call-m1"):
            steps = await office.run(Trace(name))
            assert isinstance(steps, list)
            assert [(step.node, step.sha256, step.outcome) for step in steps] == [
                ("example.org", record.fingerprint, "pending")
            ]
        with pytest.raises(CommandRefused, match="No message is known"):
            await office.run(Trace("ffffffff"))


class TestPolicy:
    """What an account requires of messages (SEED-37): durable first, then told to the running service."""

    KEY = "im:alice@example.org"

    @in_loop
    async def test_it_is_kept_told_shown_and_taken_away(self) -> None:
        office = Office()
        await office.run(AddAccount("alice@example.org", "secret"))
        nothing = AccountPolicy("alice@example.org", [], [], "off", "any")
        assert await office.run(SetPolicy("alice@example.org")) == nothing
        wanted = AccountPolicy("alice@example.org", ["signed", "tls"], ["encrypted"], "refuse", "signed")
        asked = SetPolicy("Alice@Example.org", True, ["tls", "signed"], ["encrypted"], "refuse", "signed")
        assert await office.run(asked) == wanted
        rule = Rule(
            frozenset({Requirement.TLS, Requirement.SIGNED}),
            frozenset({Requirement.ENCRYPTED}),
            verify="refuse",
            operations="signed",
        )
        assert office.told == [(self.KEY, rule)]
        entry = await office.store.get("setting", f"protection/{self.KEY}")
        assert entry is not None
        assert unpack_rule(entry.value, self.KEY) == rule
        assert await office.run(SetPolicy("alice@example.org")) == wanted
        assert await office.run(SetPolicy("alice@example.org", True)) == nothing
        assert office.told[1:] == [(self.KEY, NO_RULE)]
        assert await office.store.get("setting", f"protection/{self.KEY}") is None

    @in_loop
    async def test_one_that_cannot_be_read_is_not_shown_as_none_and_can_be_set_anew(self) -> None:
        """A server does not start with it: this is the way out."""
        office = Office()
        await office.run(AddAccount("alice@example.org", "secret"))
        for options in (["tls"], []):
            await office.store.commit([Put("setting", f"protection/{self.KEY}", b'{"require":["quantum"]}')])
            with pytest.raises(StoreError, match="protection rule of im:alice"):
                await office.run(SetPolicy("alice@example.org"))
            set_anew = await office.run(SetPolicy("alice@example.org", True, options))
            assert set_anew == AccountPolicy("alice@example.org", options, [], "off", "any")
            assert await office.run(SetPolicy("alice@example.org")) == set_anew

    @in_loop
    async def test_a_later_owner_of_the_name_does_not_get_it(self) -> None:
        office = Office()
        await office.run(AddAccount("alice@example.org", "secret"))
        await office.run(SetPolicy("alice@example.org", True, ["signed"]))
        await office.run(RemoveAccount("alice@example.org"))
        assert (self.KEY, NO_RULE) in office.told
        assert await office.store.get("setting", f"protection/{self.KEY}") is None

    @in_loop
    async def test_what_cannot_be_is_refused_with_a_sentence(self) -> None:
        office = Office()
        with pytest.raises(CommandRefused):
            await office.run(SetPolicy("alice@example.org", True, ["tls"]))  # no such account
        await office.run(AddAccount("alice@example.org", "secret"))
        for request in (
            SetPolicy("alice@example.org", True, ["quantum"]),
            SetPolicy("alice@example.org", True, verify="later"),
            SetPolicy("alice@example.org", True, operations="all"),
        ):
            with pytest.raises(CommandRefused) as caught:
                await office.run(request)
            assert caught.value.exit_code == 2
        alone = Commands(office.store, ["example.org"], PlainRecords("example.org"))
        with pytest.raises(CommandRefused, match="no authorities"):
            await alone.run(SetPolicy("alice@example.org", True, verify="mark"))
        with pytest.raises(CommandRefused, match=r"\[security\] trust"):
            await alone.run(SetPolicy("alice@example.org", True, operations="signed"))
        assert not office.told
