"""Passwords to keys: what the server keeps of an account, how it is encoded, and who signs in wrongly too often.

Place on the path: before step 4; bindings ask ``StoreAccounts`` whose password a proof must fit. The password
itself is never kept. SCRAM keys and HA1 values (a password equivalent) live in separate spaces of the store.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import stringprep
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network

import msgspec
from precis_i18n import get_profile

from comity.cpim.address import Address
from comity.errors import AddressError, ComityError
from comity.service.interfaces import Credentials, ScramKeys, Store

log = logging.getLogger(__name__)

#: hashlib's name of each SCRAM hash by the name used in ``Credentials.scram``.
SCRAM_HASHES = {"sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}
DIGEST_HASHES = {"MD5": "md5", "SHA-256": "sha256"}

#: reliability.md section 6.1 item 2; RFC 7677 section 4 asks for 4,096 at least.
ITERATIONS = 100_000
#: COMPAT Cyrus SASL 2.1 (Pidgin, Finch and BitlBee on Linux): refuses more, in its plugins/scram.c. An operator may go
#: down to this and no further.
MIN_ITERATIONS = 65_536
SALT_OCTETS = 16
MAX_PASSWORD_OCTETS = 1024
"""A bound on what one sign-in may make us hash, the same as other servers'."""

#: Names of accounts kept in memory: some 10 MB at most.
MOST_EXISTING = 65_536

#: SASLprep's prohibited output that OpaqueString does not refuse already (RFC 4013 section 2.3).
_PROHIBITED = (
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class PasswordError(ComityError):
    """A password that may not be used; the text says why and never repeats it."""


class BadRecord(ComityError):
    """A stored credential that cannot be read back."""


# --- passwords --------------------------------------------------------------------------------------------------


def prepare_password(password: str) -> str:
    """Bring a new password into the one form from which keys are derived.

    Programs prepare passwords by SASLprep (RFC 4013, older) or OpaqueString (RFC 8265, newer). A password on which
    the two disagree would work in one program and fail in the next, so it is refused.

    Raises:
        PasswordError: empty, too long, with control characters, or different under the two rules.
    """
    if not password:
        raise PasswordError("The password is empty. Choose one of at least one character, better of four words.")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in password):
        raise PasswordError("The password holds a control character (a tab or line end?). Leave it out.")
    try:
        prepared: str = get_profile("OpaqueString").enforce(password)
    except UnicodeEncodeError as error:  # how precis_i18n says that a code point is disallowed
        raise PasswordError("The password holds a character that RFC 8265 does not allow. Leave it out.") from error
    if len(prepared.encode("utf-8")) > MAX_PASSWORD_OCTETS:
        raise PasswordError(f"The password is longer than {MAX_PASSWORD_OCTETS} octets. Choose a shorter one.")
    if _saslprep(password) != prepared:
        raise PasswordError(
            "The password holds a character that some programs replace before sending it (a ligature, a circled "
            "digit, a full-width letter, an invisible mark), so that signing in would fail. Use plain characters."
        )
    return prepared


def _saslprep(password: str) -> str | None:
    """SASLprep of ``password`` (RFC 4013), or None if it is prohibited there; bidi rules included."""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    text = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(check(c) for c in text for check in _PROHIBITED):
        return None
    right_to_left = [stringprep.in_table_d1(c) for c in text]
    if any(right_to_left) and (
        any(stringprep.in_table_d2(c) for c in text) or not (right_to_left[0] and right_to_left[-1])
    ):
        return None
    return text


# --- derivation -------------------------------------------------------------------------------------------------


def derive(address: Address, password: str, iterations: int = ITERATIONS) -> Credentials:
    """Derive all keys of an account; takes some 0.3 s of CPU, so call it in a worker.

    Raises:
        PasswordError: see ``prepare_password``.
        ValueError: fewer than ``MIN_ITERATIONS``.
    """
    return Credentials(address, derive_scram(password, iterations), derive_ha1(address, password))


def derive_scram(password: str, iterations: int = ITERATIONS) -> dict[str, ScramKeys]:
    """SCRAM keys of ``password``, each hash with a random salt of its own (RFC 5802 section 3)."""
    if iterations < MIN_ITERATIONS:
        raise ValueError(f"at least {MIN_ITERATIONS} iterations, not {iterations}")
    octets = prepare_password(password).encode("utf-8")
    keys = {}
    for name, hash_name in SCRAM_HASHES.items():
        salt = secrets.token_bytes(SALT_OCTETS)
        salted = hashlib.pbkdf2_hmac(hash_name, octets, salt, iterations)
        stored = hashlib.new(hash_name, hmac.digest(salted, b"Client Key", hash_name)).digest()
        keys[name] = ScramKeys(salt, iterations, stored, hmac.digest(salted, b"Server Key", hash_name))
    return keys


def derive_ha1(address: Address, password: str) -> dict[str, str]:
    """HA1 of each digest algorithm: H(user:realm:password), realm = domain (RFC 7616 section 3.4.2).

    The user name is hashed as the phone writes it, so the other ways in which people enter theirs have values of their
    own, by ``ALGORITHM USERNAME``: with a capital letter, and with the domain.
    """
    user, domain = address.folded().local, address.domain
    names = {"": user} | {f" {name}": name for name in (user.capitalize(), f"{user}@{domain}") if name != user}
    values = {}
    for suffix, name in names.items():
        text = f"{name}:{domain}:{prepare_password(password)}".encode()
        # MD5 is what RFC 3261 phones speak; [policy] sip_md5 = false stops offering it.
        for algorithm, kind in DIGEST_HASHES.items():
            values[algorithm + suffix] = hashlib.new(kind, text, usedforsecurity=False).hexdigest()
    return values


# --- encoding ---------------------------------------------------------------------------------------------------


def encode_scram(keys: Mapping[str, ScramKeys]) -> bytes:
    """Encode the value of space "scram"."""
    return msgspec.json.encode(dict(keys))


def decode_scram(value: bytes) -> dict[str, ScramKeys]:
    """Decode the value of space "scram". Raises BadRecord."""
    try:
        return msgspec.json.decode(value, type=dict[str, ScramKeys])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRecord("the stored SCRAM keys of an account cannot be read; set its password anew") from error


def encode_ha1(values: Mapping[str, str]) -> bytes:
    """Encode the value of space "ha1"."""
    return msgspec.json.encode(dict(values))


def decode_ha1(value: bytes) -> dict[str, str]:
    """Decode the value of space "ha1". Raises BadRecord."""
    try:
        return msgspec.json.decode(value, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRecord("the stored HA1 values of an account cannot be read; set its password anew") from error


#: What is decoded for an account that does not exist.
_NO_SCRAM = encode_scram({name: ScramKeys(bytes(SALT_OCTETS), 1, bytes(64), bytes(64)) for name in SCRAM_HASHES})
_NO_HA1 = encode_ha1(dict.fromkeys(DIGEST_HASHES, "0" * 64))


# --- accounts ---------------------------------------------------------------------------------------------------


class StoreAccounts:
    """The server's accounts, read from the store (``Accounts`` of interfaces.py).

    Args:
        store: where they are.
        domains: served domains.
        guard: the counter of failed sign-ins.
        size: accounts remembered to exist, the one asked for longest ago leaves first.
    """

    def __init__(self, store: Store, domains: Collection[str], guard: FailureGuard, size: int = MOST_EXISTING) -> None:
        self._store = store
        self._domains = frozenset(_canonical(domain) for domain in domains)
        self._guard = guard
        self._size = size
        self._existing: OrderedDict[str, None] = OrderedDict()
        """Accounts seen in the store: every message asks whether its recipient exists, few ask for credentials."""
        self._generation = 0
        """Counts ``forget``: what was read before one may not be remembered after it."""

    async def credentials(self, address: Address) -> Credentials | None:
        """Credentials of a local account, or None. Raises StoreError and BadRecord.

        The same is asked and decoded whether or not there is such an account, and nothing is kept here: how long
        the answer takes must not tell who has one (X-33).
        """
        try:
            key = address_key(address)
        except AddressError:
            return None
        account = await self._store.get("account", key)
        scram = await self._store.get("scram", key)
        ha1 = await self._store.get("ha1", key)
        keys = decode_scram(scram.value if scram else _NO_SCRAM)
        values = decode_ha1(ha1.value if ha1 else _NO_HA1)
        found = Credentials(Address.parse(key), keys if scram else {}, values if ha1 else {})
        return None if account is None else found

    async def exists(self, address: Address) -> bool:
        """True if ``address`` is an account here. Raises StoreError."""
        known = self.known(address)
        if known is not None:
            return known
        key, generation = address_key(address), self._generation
        if await self._store.get("account", key) is None:
            return False
        if generation == self._generation:
            self._existing[key] = None
            if len(self._existing) > self._size:
                self._existing.popitem(last=False)
        return True

    def known(self, address: Address) -> bool | None:
        """True or False if that needs no look into the store, else None."""
        try:
            key = address_key(address)
        except AddressError:
            return False
        return True if key in self._existing else None

    def serves(self, domain: str) -> bool:
        """True if ``domain`` (any case, U- or A-label) is one of ours."""
        return domain in self._domains or _canonical(domain) in self._domains

    def guard(self) -> FailureGuard:
        """The counter of failed sign-ins."""
        return self._guard

    def forget(self, address: Address) -> None:
        """Read ``address`` from the store next time: its account was changed."""
        self._generation += 1
        key = address_key(address)
        self._existing.pop(key, None)


@lru_cache(maxsize=8192)
def address_key(address: Address) -> str:
    """Key of an account in the store: ``im:user@domain`` without regard to case, whatever scheme was asked with.

    Raises:
        AddressError: no account can have this name (RFC 7622 section 3.3).
    """
    return address.with_scheme("im").folded().key


def _canonical(domain: str) -> str:
    """A domain as ``Address`` writes it; text that is no domain equals no served one."""
    try:
        return Address.parse(f"im:a@{domain}").domain
    except AddressError:
        return ""


# --- failed sign-ins ----------------------------------------------------------------------------------------------


class FailureGuard:
    """Bans a remote address for a time after too many failed sign-ins (``Guard`` of interfaces.py).

    IPv6 addresses count by their /64: every house and every rented server has all of one to change in.

    Args:
        limit: failures until the ban (``[limits] failures_per_address``).
        ban: seconds a ban lasts; failures older than that are forgotten too.
        now: monotonic seconds.
        size: addresses remembered; the one heard of longest ago leaves first, banned ones last.
    """

    def __init__(
        self, limit: int = 20, ban: float = 3600.0, now: Callable[[], float] = time.monotonic, size: int = 65_536
    ) -> None:
        self._limit = limit
        self._ban = ban
        self._now = now
        self._size = size
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Host to (failures, time of the first); the order is that of the latest failure."""
        self._banned: OrderedDict[str, float] = OrderedDict()
        """Host to the end of its ban; the order is that of the ends."""

    def is_banned(self, host: str) -> bool:
        """True while ``host`` has to be refused without looking at what it says."""
        host = _origin(host)
        end = self._banned.get(host)
        if end is None:
            return False
        if self._now() < end:
            return True
        del self._banned[host]
        return False

    def failed(self, host: str, address: Address | None) -> None:
        """Count one failed sign-in from ``host``; ``address`` is whom it claimed to be, for the log only."""
        host = _origin(host)
        now = self._now()
        count, first = self._failures.pop(host, (0, now))
        if now - first >= self._ban:
            count, first = 0, now
        if count + 1 < self._limit:
            self._failures[host] = (count + 1, first)
            if len(self._failures) > self._size:
                self._failures.popitem(last=False)
            return
        self._banned.pop(host, None)
        self._banned[host] = now + self._ban
        log.warning("%s is banned for %.0f s after %d failed sign-ins", host, self._ban, self._limit)
        if len(self._banned) > self._size:
            self._banned.popitem(last=False)

    def succeeded(self, host: str) -> None:
        """Forget nothing.

        One good password must not wash away a run of bad ones: an attacker with an account of its own would
        sign in between two guesses. Failures leave by age alone.
        """


@lru_cache(maxsize=8192)
def _origin(host: str) -> str:
    """What failures are counted by: an IPv4 address (also when mapped into IPv6), or the /64 of an IPv6 one."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else str(ip_network((address, 64), strict=False))
