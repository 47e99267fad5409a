"""One's own OpenPGP keys on disk, under the same passphrase protection as the S/MIME ones.

Place on the path: beside it; ``KeyStore`` hands on to it. ``COMITY_HOME/keys/openpgp/NAME.pem`` holds two blocks: the certificate,
readable without a passphrase, and the secret packets, sealed (``passphrase.py``) or open; ``keys/openpgp/old`` what was
replaced or revoked. One file, so that no crash can part the two.
"""

from __future__ import annotations

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import openpgp
from comity.secure.home import Home
from comity.secure.openpgp import PgpIdentity
from comity.secure.own_keys import SUFFIX, KeyFolder, readable, rewrite
from comity.secure.passphrase import open_octets, pem, pem_blocks, pem_octets, protect_octets

CURRENT, OLD = "keys/openpgp", "keys/openpgp/old"
CERTIFICATE, OPEN, SEALED = "COMITY OPENPGP CERTIFICATE", "COMITY OPENPGP KEY", "COMITY SEALED OPENPGP KEY"


class OwnPgp(KeyFolder):
    """The OpenPGP identities in a home; every method raises SecurityError with a sentence."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, CURRENT, OLD)

    def save(self, identity: PgpIdentity, passphrase: bytes | None = None, *, is_new: bool = False) -> None:
        """Keep an identity, in place of an older one of the same address, which goes to the old ones."""
        data = _written(identity, passphrase)
        with self._home.locked():
            if self._place(identity.address).exists():
                if is_new:
                    raise SecurityError(
                        f"{identity.address} has an OpenPGP key already. Use it, or replace it with --replace."
                    )
                self._keep_old(identity.address, identity.certificate)
            self._write(identity.address, data)

    def load(self, address: Address, passphrase: bytes | None = None) -> PgpIdentity:
        """Read the OpenPGP identity of ``address``."""
        return _read(self._data(address), address, passphrase)

    def certificate(self, address: Address) -> bytes:
        """Its certificate, binary packets, without the key."""
        return pem_octets(_block(self._data(address), CERTIFICATE, str(address)))

    def is_encrypted(self, address: Address) -> bool:
        """True if the key of ``address`` is under a passphrase."""
        return _is_sealed(self._data(address))

    def change_passphrase(self, address: Address, old: bytes | None, new: bytes | None) -> None:
        """Put the key of ``address`` under another passphrase; None takes it off. Old keys that open follow."""
        with self._home.locked():
            rewrite(self._home, self._all(address), lambda data: _written(_read(data, address, old), new))

    def replace_certificate(self, address: Address, certificate: bytes) -> None:
        """Keep another version of the own certificate, such as the revoked one; the key stays as it lies."""
        with self._home.locked():
            secret = next(block for label, block in pem_blocks(self._data(address)) if label in (OPEN, SEALED))
            self._write(address, pem(CERTIFICATE, certificate) + secret)

    def retire(self, address: Address) -> None:
        """Sign no more as ``address``; what was encrypted for the key can still be opened."""
        with self._home.locked():
            self._keep_old(address)
            self._remove(address)

    def old_certificates(self) -> list[bytes]:
        """Own certificates that were replaced or revoked, binary packets."""
        files = self._home.files(OLD, SUFFIX)
        return [pem_octets(_block(self._home.read(file), CERTIFICATE, file.name)) for file in files]

    def needs_passphrase(self, address: Address) -> bool:
        """True if one of the keys that may open something for ``address`` is under a passphrase."""
        return any(_is_sealed(self._home.read(file)) for file in self._all(address))

    def decrypting(self, address: Address, passphrase: bytes | None = None) -> list[PgpIdentity]:
        """The identities of ``address`` that may open what was encrypted for it: the current one, then the old ones.

        Raises:
            SecurityError: none of them can be read; an old one under another passphrase is passed over."""
        return readable(self._all(address), lambda file: _read(self._home.read(file), address, passphrase))

    # --- files ---

    def _data(self, address: Address) -> bytes:
        if not self._place(address).exists():
            raise SecurityError(
                f"There is no OpenPGP key for {address}. Make one with: comity keys new {address} --kind openpgp"
            )
        return self._home.read(self._place(address))

    def _keep_old(self, address: Address, successor: bytes | None = None) -> None:
        """Keep the current key among the old ones, unless a successor's certificate has it and all its subkeys."""
        data = self._data(address)
        own = _fingerprints(pem_octets(_block(data, CERTIFICATE, str(address))))
        if successor is None or not set(own) <= set(_fingerprints(successor)):
            self._write_old(address, own[0], data)


def _is_sealed(data: bytes) -> bool:
    return any(label == SEALED for label, _ in pem_blocks(data))


def _written(identity: PgpIdentity, passphrase: bytes | None) -> bytes:
    secret = identity.to_bytes()
    key = pem(SEALED, protect_octets(secret, passphrase)) if passphrase else pem(OPEN, secret)
    return pem(CERTIFICATE, identity.certificate) + key


def _read(data: bytes, address: Address, passphrase: bytes | None) -> PgpIdentity:
    what = f"{address} (OpenPGP)"
    for label, block in pem_blocks(data):
        if label == SEALED and not passphrase:
            raise SecurityError(f"The private key of {what} is under a passphrase: give it.")
        if label == SEALED:
            assert passphrase is not None
            return PgpIdentity.from_bytes(open_octets(pem_octets(block), passphrase, what), address)
        if label == OPEN:
            return PgpIdentity.from_bytes(pem_octets(block), address)
    raise SecurityError(f"The private key of {what} cannot be read: the file is damaged.")


def _block(data: bytes, label: str, what: str) -> bytes:
    for found, block in pem_blocks(data):
        if found == label:
            return block
    raise SecurityError(f"The OpenPGP key of {what} cannot be read: the file is damaged.")


def _fingerprints(certificate: bytes) -> list[str]:
    """Of the primary key, then of its subkeys."""
    return [key.fingerprint for key in openpgp.read_certificates(certificate)[0].keys]
