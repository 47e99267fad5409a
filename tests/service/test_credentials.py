"""Passwords to keys, the accounts of the store, and the guard against guessing."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.service.credentials import (
    ITERATIONS,
    MIN_ITERATIONS,
    BadRecord,
    FailureGuard,
    PasswordError,
    StoreAccounts,
    address_key,
    decode_ha1,
    decode_scram,
    derive,
    derive_ha1,
    derive_scram,
    encode_ha1,
    encode_scram,
    prepare_password,
)
from comity.service.interfaces import Delete, Put
from comity.store.memory import MemoryStore
from tests.loop import in_loop

ALICE = Address.parse("im:alice@example.org")


class TestPasswords:
    @pytest.mark.parametrize("password", ["secret", "correct horse battery staple", "pässwörd", "日本語", "😀", " x "])
    def test_a_password_is_kept_as_it_is(self, password: str) -> None:
        assert prepare_password(password) == password

    def test_other_spaces_become_a_space_in_both_profiles(self) -> None:
        assert prepare_password("a\u00a0b") == "a b"

    @pytest.mark.parametrize(
        ("password", "problem"),
        [
            ("", "is empty"),
            ("a\tb", "control character"),
            ("a\n", "control character"),
            ("\x00", "control character"),
            ("\ud800", "control character"),
            ("x" * 1025, "longer than 1024"),
            ("ﬁ", "replace"),
            ("①", "replace"),
            ("Ａ", "replace"),
            ("\u0627\u0031", "replace"),
            ("a\u00ad", "RFC 8265"),
        ],
    )
    def test_a_password_that_some_program_could_not_send_is_refused(self, password: str, problem: str) -> None:
        with pytest.raises(PasswordError, match=problem) as caught:
            prepare_password(password)
        assert len(password) > 2000 or not password or password not in str(caught.value)

    @given(st.text(max_size=20))
    def test_preparing_twice_changes_nothing(self, password: str) -> None:
        try:
            once = prepare_password(password)
        except PasswordError:
            return
        assert prepare_password(once) == once


class TestDerivation:
    def test_scram_keys_are_those_of_rfc_5802(self) -> None:
        keys = derive_scram("pencil")
        assert set(keys) == {"sha-1", "sha-256", "sha-512"}
        for name, key in keys.items():
            kind = name.replace("-", "")
            salted = hashlib.pbkdf2_hmac(kind, b"pencil", key.salt, key.iterations)
            client_key = hmac.digest(salted, b"Client Key", kind)
            assert key.stored_key == hashlib.new(kind, client_key).digest()
            assert key.server_key == hmac.digest(salted, b"Server Key", kind)
            assert key.iterations == ITERATIONS
        assert len({key.salt for key in keys.values()}) == 3

    def test_the_published_exchange_of_rfc_7677_verifies_with_this_arithmetic(self) -> None:
        """RFC 7677 section 3, whose 4096 iterations are fewer than we allow, so the salt is put in by hand."""
        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 4096)
        message = (
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        )
        signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message.encode(), "sha256")
        assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

    def test_ha1_is_that_of_rfc_7616(self) -> None:
        """RFC 7616 section 3.9.1's arithmetic, with our realm = domain."""
        text = b"alice:example.org:secret"
        values = derive_ha1(ALICE, "secret")
        assert values["MD5"] == hashlib.md5(text).hexdigest()
        assert values["SHA-256"] == hashlib.sha256(text).hexdigest()

    def test_a_phone_may_write_the_user_name_its_own_way(self) -> None:
        """ADDR-4: digest hashes the name as written, so usual spellings have values of their own."""
        values = derive_ha1(ALICE, "secret")
        for name in ("Alice", "alice@example.org"):
            assert values[f"MD5 {name}"] == hashlib.md5(f"{name}:example.org:secret".encode()).hexdigest()
            assert values[f"SHA-256 {name}"] == hashlib.sha256(f"{name}:example.org:secret".encode()).hexdigest()

    def test_fewer_iterations_are_refused(self) -> None:
        with pytest.raises(ValueError, match="65536"):
            derive_scram("x", MIN_ITERATIONS - 1)

    def test_what_is_encoded_is_decoded(self) -> None:
        credentials = derive(ALICE, "secret")
        assert decode_scram(encode_scram(credentials.scram)) == credentials.scram
        assert decode_ha1(encode_ha1(credentials.ha1)) == credentials.ha1
        assert b"secret" not in encode_scram(credentials.scram) + encode_ha1(credentials.ha1)

    @given(st.binary(max_size=60))
    def test_octets_that_are_no_keys_are_bad_records(self, octets: bytes) -> None:
        for decode in (decode_scram, decode_ha1):
            try:
                assert isinstance(decode(octets), dict)
            except BadRecord:
                pass


def accounts(store: MemoryStore, size: int = 4096) -> StoreAccounts:
    return StoreAccounts(store, ["example.org", "bücher.example"], FailureGuard(), size)


async def put(store: MemoryStore, address: Address, ha1: str) -> None:
    key = address_key(address)
    await store.commit([Put("ha1", key, encode_ha1({"MD5": ha1})), Put("account", key, b"{}")])


class TestStoreAccounts:
    @in_loop
    async def test_credentials_of_an_account_and_of_nobody(self) -> None:
        store = MemoryStore()
        await put(store, ALICE, "one")
        known = await accounts(store).credentials(ALICE)
        assert known is not None
        assert known.ha1 == {"MD5": "one"}
        assert known.scram == {}
        assert known.address == ALICE
        assert await accounts(store).credentials(Address.parse("im:bob@example.org")) is None
        assert await accounts(store).exists(ALICE)
        assert not await accounts(store).exists(Address("im", "\x00", "example.org"))
        assert await accounts(store).credentials(Address("im", "\x00", "example.org")) is None

    @in_loop
    async def test_case_makes_no_difference(self) -> None:
        """ADDR-4."""
        store = MemoryStore()
        await put(store, ALICE, "one")
        assert await accounts(store).exists(Address.parse("pres:Alice@EXAMPLE.org"))

    @in_loop
    async def test_a_change_is_seen_after_forget(self) -> None:
        store = MemoryStore()
        here = accounts(store)
        await put(store, ALICE, "one")
        await here.credentials(ALICE)
        await put(store, ALICE, "two")
        here.forget(ALICE)
        changed = await here.credentials(ALICE)
        assert changed is not None
        assert changed.ha1 == {"MD5": "two"}
        await store.commit([Delete("account", address_key(ALICE))])
        here.forget(ALICE)
        assert await here.credentials(ALICE) is None
        assert not await here.exists(ALICE)

    @in_loop
    async def test_a_read_that_began_before_a_change_is_not_kept(self) -> None:
        store = MemoryStore()
        here = accounts(store)
        await put(store, ALICE, "one")
        get = store.get

        async def get_and_change(space: str, key: str) -> object:
            found = await get(space, key)  # type: ignore[arg-type]  # the wrapper passes on what it was given
            await store.commit([Delete("account", address_key(ALICE))])
            here.forget(ALICE)
            return found

        store.get = get_and_change  # type: ignore[assignment,method-assign]  # one change, timed exactly
        assert await here.exists(ALICE)
        store.get = get  # type: ignore[method-assign]  # put back
        assert here.known(ALICE) is None
        assert not await here.exists(ALICE)

    @in_loop
    async def test_what_is_known_needs_no_look_into_the_store(self) -> None:
        store = MemoryStore()
        here = accounts(store)
        assert here.known(ALICE) is None
        assert not await here.exists(ALICE)
        assert here.known(ALICE) is None
        await put(store, ALICE, "one")
        assert await here.exists(ALICE)
        assert here.known(Address.parse("im:ALICE@example.org")) is True
        assert here.known(Address("im", "\x00", "example.org")) is False
        await store.commit([Delete("account", address_key(ALICE))])
        here.forget(ALICE)
        assert here.known(ALICE) is None
        assert not await here.exists(ALICE)

    @in_loop
    async def test_what_is_remembered_is_bounded(self) -> None:
        store = MemoryStore()
        here = accounts(store, size=3)
        for name in "abcde":
            await put(store, Address.im(name, "example.org"), name)
            await here.exists(Address.im(name, "example.org"))
        assert [here.known(Address.im(name, "example.org")) for name in "abcde"] == [None, None, True, True, True]

    @in_loop
    async def test_the_store_is_asked_the_same_for_an_account_and_for_none(self) -> None:
        """X-33: the time of the answer tells nothing."""
        store = MemoryStore()
        here = accounts(store)
        await put(store, ALICE, "one")
        get, asked = store.get, list[str]()

        async def count(space: str, key: str) -> object:
            asked.append(space)
            return await get(space, key)  # type: ignore[arg-type]  # the wrapper passes on what it was given

        store.get = count  # type: ignore[assignment,method-assign]  # counts only
        for address in (ALICE, ALICE, Address.im("nobody", "example.org")):
            asked.clear()
            await here.credentials(address)
            assert asked == ["account", "scram", "ha1"]

    def test_domains_are_served_in_any_case_and_label(self) -> None:
        here = accounts(MemoryStore())
        assert here.serves("EXAMPLE.org")
        assert here.serves("xn--bcher-kva.example")
        assert here.serves("Bücher.example")
        assert not here.serves("example.net")
        assert not here.serves("not a domain")


class TestFailureGuard:
    """reliability.md section 6.2: 20 failures per address, then banned for one hour."""

    def guard(self, size: int = 100) -> FailureGuard:
        self.time = 1000.0
        return FailureGuard(now=lambda: self.time, size=size)

    def test_twenty_failures_ban_for_an_hour(self) -> None:
        guard = self.guard()
        for _ in range(19):
            guard.failed("192.0.2.1", ALICE)
        assert not guard.is_banned("192.0.2.1")
        guard.failed("192.0.2.1", None)
        assert guard.is_banned("192.0.2.1")
        assert not guard.is_banned("192.0.2.2")
        self.time += 3599
        assert guard.is_banned("192.0.2.1")
        self.time += 1
        assert not guard.is_banned("192.0.2.1")
        guard.failed("192.0.2.1", None)
        assert not guard.is_banned("192.0.2.1")

    def test_old_failures_are_forgotten(self) -> None:
        guard = self.guard()
        for _ in range(19):
            guard.failed("192.0.2.1", None)
        self.time += 3600
        guard.failed("192.0.2.1", None)
        assert not guard.is_banned("192.0.2.1")

    def test_a_success_does_not_wash_guesses_away(self) -> None:
        guard = self.guard()
        for _ in range(20):
            guard.failed("192.0.2.1", ALICE)
            guard.succeeded("192.0.2.1")
        assert guard.is_banned("192.0.2.1")

    def test_the_table_is_bounded(self) -> None:
        guard = self.guard(size=50)
        for n in range(500):
            guard.failed(f"2001:db8:0:{n:x}::1", None)
        for n in range(500):
            for _ in range(20):
                guard.failed(f"2001:db8:1:{n:x}::1", None)
        assert len(guard._failures) <= 50
        assert len(guard._banned) <= 50
        assert guard.is_banned("2001:db8:1:1f3::1")

    def test_ipv6_counts_by_64_and_mapped_ipv4_as_ipv4(self) -> None:
        guard = self.guard()
        for n in range(20):
            guard.failed(f"2001:db8::{n:x}", None)
            guard.failed("192.0.2.7" if n % 2 else "::ffff:192.0.2.7", None)
        assert guard.is_banned("2001:db8::ffff:1")
        assert not guard.is_banned("2001:db8:0:1::1")
        assert guard.is_banned("::ffff:192.0.2.7")
        assert guard.is_banned("192.0.2.7")
        assert not guard.is_banned("::ffff:192.0.2.8")
        assert not guard.is_banned("no address at all")
