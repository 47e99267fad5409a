"""One's own identities on disk: private keys under a passphrase, each in one file with its certificates.

Place on the path: beside it; ``KeyStore`` hands on to it. Layout under ``COMITY_HOME/keys``:

    NAME.pem             PKCS#8 key, its certificate, intermediates to send along
    waiting/NAME.pem     a key and the request for its certificate, until ``import`` brings that
    old/NAME.SHA.pem     replaced or revoked: opens what was encrypted for it, signs no more

NAME is the im: address without its scheme, percent-encoded; SHA the first 16 digits of the certificate's fingerprint. Key
and certificate are one file, so that no crash can part them, and what is replaced is kept before it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from comity.cpim.address import Address
from comity.errors import AddressError, SecurityError
from comity.secure import chain
from comity.secure.home import Home, file_name
from comity.secure.identity import Identity, PrivateKey, alternative_names, hash_for, public_octets
from comity.secure.keyfile import (
    address_in,
    certificate_pem,
    identity_pem,
    is_encrypted,
    key_blocks,
    key_pem,
    own_certificates,
    read_certificates,
    read_identity_pem,
)

IdentityT = TypeVar("IdentityT")

CURRENT, WAITING, OLD = "keys", "keys/waiting", "keys/old"
SUFFIX = ".pem"


class KeyFolder:
    """Files of keys by address: a current one, and old ones that still open something.

    Args:
        home: where.
        current: the folder of the current ones.
        old: the folder of those that were replaced or revoked.
    """

    def __init__(self, home: Home, current: str, old: str) -> None:
        self._home, self._current_folder, self._old_folder = home, current, old

    def addresses(self) -> list[Address]:
        """Addresses that have a current key."""
        return named(file.name.removesuffix(SUFFIX) for file in self._home.files(self._current_folder, SUFFIX))

    def reading_addresses(self) -> list[Address]:
        """Addresses that have a key to open something with, be it an old one."""
        old = named(_owner(file) for file in self._home.files(self._old_folder, SUFFIX))
        return list(dict.fromkeys((*self.addresses(), *old)))

    def _place(self, address: Address) -> Path:
        """Where the current key lies, if there is one."""
        return self._home.path / self._current_folder / (file_name(address) + SUFFIX)

    def _all(self, address: Address) -> list[Path]:
        """The current file, if there is one, then the old ones."""
        name, current = file_name(address), self._place(address)
        old = [file for file in self._home.files(self._old_folder, SUFFIX) if _owner(file) == name]
        return [current, *old] if current.exists() else old

    def _write(self, address: Address, data: bytes) -> None:
        self._home.write(self._current_folder, file_name(address) + SUFFIX, data)

    def _write_old(self, address: Address, fingerprint: str, data: bytes) -> None:
        self._home.write(self._old_folder, f"{file_name(address)}.{fingerprint[:16]}{SUFFIX}", data)

    def _remove(self, address: Address) -> None:
        self._home.remove(self._current_folder, file_name(address) + SUFFIX)


class OwnKeys(KeyFolder):
    """The identities in a home; every method raises SecurityError with a sentence."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, CURRENT, OLD)

    def save(self, identity: Identity, passphrase: bytes | None = None, *, is_new: bool = False) -> None:
        """Keep an identity, in place of an older one of the same address, which goes to the old ones.

        Args:
            identity: with its key.
            passphrase: the key lies under it; None: it lies open.
            is_new: True refuses to take the place of another.
        """
        data = identity_pem(identity, passphrase)
        with self._home.locked():
            if is_new and self._place(identity.address).exists():
                raise SecurityError(f"{identity.address} has a key already. Use it, or replace it with --replace.")
            self._put(identity.address, data)

    def load(self, address: Address, passphrase: bytes | None = None) -> Identity:
        """Read the identity of ``address``."""
        return read_identity_pem(self._data(address), passphrase, str(address), address.with_scheme("im"))

    def is_encrypted(self, address: Address) -> bool:
        """True if the key of ``address`` is under a passphrase."""
        return is_encrypted(self._data(address))

    def certificate(self, address: Address) -> x509.Certificate:
        """The own certificate of ``address``, without its key."""
        return self.certificates(address)[0]

    def certificates(self, address: Address) -> list[x509.Certificate]:
        """The own certificates of ``address``: the one that signs, then the one that only reads, if it takes two."""
        return self._home.parsed(self._current(address), own_certificates)

    def change_passphrase(self, address: Address, old: bytes | None, new: bytes | None) -> None:
        """Put the key of ``address`` under another passphrase; None takes it off. Old keys that open follow."""

        def changed(data: bytes) -> bytes:
            return identity_pem(read_identity_pem(data, old, str(address), address.with_scheme("im")), new)

        with self._home.locked():
            rewrite(self._home, self._all(address), changed)

    def retire(self, address: Address) -> None:
        """Sign no more as ``address``; what was encrypted for the key can still be opened."""
        with self._home.locked():
            data = self._data(address)
            self._keep_old(address, data)
            self._remove(address)

    def old_certificates(self) -> list[x509.Certificate]:
        """Own certificates that were replaced or revoked."""
        return [each for file in self._home.files(OLD, SUFFIX) for each in self._home.parsed(file, own_certificates)]

    def needs_passphrase(self, address: Address) -> bool:
        """True if one of the keys that may open something for ``address`` is under a passphrase."""
        return any(is_encrypted(self._home.read(file)) for file in self._all(address))

    def decrypting(self, address: Address, passphrase: bytes | None = None) -> list[Identity]:
        """The identities of ``address`` that may open what was encrypted for it: the current one, then the old ones.

        Raises:
            SecurityError: none of them can be read; an old one under another passphrase is passed over."""

        def load(file: Path) -> Identity:
            return read_identity_pem(self._home.read(file), passphrase, str(address), address.with_scheme("im"))

        return readable(self._all(address), load)

    # --- waiting for a certificate of another authority ---

    def request(
        self, address: Address, key: PrivateKey, passphrase: bytes | None = None, *, is_new: bool = False
    ) -> bytes:
        """Keep ``key`` waiting and write the request (PKCS#10, PEM) for a certificate with all names of ``address``.

        Args:
            address: whose it is.
            key: made for it.
            passphrase: the key lies under it; None: it lies open.
            is_new: True refuses to take the place of another that waits: nothing else opens what is issued for that.
        """
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, str(address)[:64])]))
            .add_extension(alternative_names(address), critical=False)
            .sign(key, hash_for(key))
            .public_bytes(serialization.Encoding.PEM)
        )
        with self._home.locked():
            if is_new and self._home.exists(WAITING, file_name(address) + SUFFIX):
                raise SecurityError(
                    f"A key of {address} waits for its certificate already. Take that in with: comity keys import FILE, or "
                    "give the key up with --replace."
                )
            self._home.write(WAITING, file_name(address) + SUFFIX, key_pem(key, passphrase) + request)
        return request

    def waiting(self) -> list[Address]:
        """Addresses whose key waits for its certificate."""
        return named(file.name.removesuffix(SUFFIX) for file in self._home.files(WAITING, SUFFIX))

    def join(self, certificates: list[x509.Certificate]) -> x509.Certificate | None:
        """Join issued certificates to the waiting key one of them is for; None if it is for none.

        No passphrase is needed: the key stays as it lies. The certificate has to name the address the key waits for."""
        with self._home.locked():
            for address in self.waiting():
                data = self._home.read(self._home.path / WAITING / (file_name(address) + SUFFIX))
                wanted = _requested_key(data, address)
                own = next((c for c in certificates if public_octets_of(c) == wanted), None)
                if own is None:
                    continue
                if address_in(own) != address:
                    raise SecurityError(
                        f"The certificate is for the key of {address}, but it names {address_in(own)}. Ask the authority "
                        "for one with the names of the request."
                    )
                others = [c for c in certificates if c is not own]
                self._put(address, key_blocks(data)[0] + certificate_pem(own, *others))
                self._home.remove(WAITING, file_name(address) + SUFFIX)
                return own
        return None

    # --- files ---

    def _current(self, address: Address) -> Path:
        """The file of the current identity."""
        if not self._place(address).exists():
            if address in self.waiting():
                raise SecurityError(
                    f"The key of {address} waits for its certificate. When the authority has sent it: comity keys import FILE"
                )
            raise SecurityError(f"There is no key for {address}. Make one with: comity keys new {address}")
        return self._place(address)

    def _data(self, address: Address) -> bytes:
        return self._home.read(self._current(address))

    def _put(self, address: Address, data: bytes) -> None:
        """Write the current identity; what it replaces is kept first, so that a crash between the two loses nothing."""
        if self._place(address).exists():
            before = self._data(address)
            if not set(own_certificates(before)) <= set(own_certificates(data)):
                self._keep_old(address, before)
        self._write(address, data)

    def _keep_old(self, address: Address, data: bytes) -> None:
        self._write_old(address, chain.fingerprint(read_certificates(data)[0]), data)


def rewrite(home: Home, files: Sequence[Path], changed: Callable[[bytes], bytes]) -> None:
    """Write each file anew as ``changed`` makes it; the first has to go, others that cannot be read stay as they are.

    One after the other: killed half-way, each is as it was or as it shall be."""
    for number, file in enumerate(files):
        try:
            data = changed(home.read(file))
        except SecurityError:
            if not number:
                raise
            continue
        home.write(str(file.parent.relative_to(home.path)), file.name, data)


def _owner(old: Path) -> str:
    """Whose an old file is, by its name."""
    return old.name.removesuffix(SUFFIX).rpartition(".")[0]


def named(names: Iterable[str]) -> list[Address]:
    """The addresses that files are called by; what is no file of ours is passed over."""
    found: list[Address] = []
    for name in names:
        try:
            found.append(Address.parse(f"im:{name}"))
        except AddressError:
            continue
    return found


def readable(files: Iterable[Path], load: Callable[[Path], IdentityT]) -> list[IdentityT]:
    """What ``load`` makes of the files that can be read; raises the first error if none can."""
    found: list[IdentityT] = []
    errors: list[SecurityError] = []
    for file in files:
        try:
            found.append(load(file))
        except SecurityError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    return found


def public_octets_of(certificate: x509.Certificate) -> bytes | None:
    """The public key in a certificate, None if it is of a kind we do not use."""
    try:
        return public_octets(certificate.public_key())
    except (SecurityError, *chain.CERTIFICATE_ERRORS):
        return None


def _requested_key(data: bytes, address: Address) -> bytes:
    """The public key in the request that lies beside a waiting key."""
    start = data.find(b"-----BEGIN CERTIFICATE REQUEST-----")
    try:
        return public_octets(x509.load_pem_x509_csr(data[max(start, 0) :]).public_key())
    except chain.CERTIFICATE_ERRORS as error:
        raise SecurityError(
            f"The request that waits for {address} is damaged. Make a new one: comity keys new {address} --request FILE "
            "--replace"
        ) from error
