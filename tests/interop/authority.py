"""Certificates as servers show them to each other: any names, any time, from one authority of the test."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM = serialization.Encoding.PEM
SRV_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")
XMPP_ADDR = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")
USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def srv_name(name: str) -> x509.OtherName:
    """An SRVName (RFC 4985), such as ``_xmpp-server.b.test``."""
    return x509.OtherName(SRV_NAME, bytes([0x16, len(name)]) + name.encode())


def xmpp_addr(name: str) -> x509.OtherName:
    """An XmppAddr (RFC 6120 section 13.7.1.4)."""
    return x509.OtherName(XMPP_ADDR, bytes([0x0C, len(name.encode())]) + name.encode())


class Authority:
    """A certificate authority.

    Args:
        folder: for its files.
        name: its common name.
    """

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._count = 0
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self._name, self._key.public_key(), (-60, 30))
        signed = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / "authority.pem"
        """PEM, for those who are to believe it."""
        self.file.write_bytes(signed.public_bytes(_PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: tuple[float, float]
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
        )

    def issue(
        self,
        *names: str | x509.GeneralName,
        days: tuple[float, float] = (-1, 30),
        uses: Sequence[x509.ObjectIdentifier] = USES,
        common_name: str = "a server",
    ) -> tuple[Path, Path]:
        """Certificate and key; text is a dNSName."""
        key = ec.generate_private_key(ec.SECP256R1())
        entries = [x509.DNSName(name) if isinstance(name, str) else name for name in names]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._builder(subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if entries:
            builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
        self._count += 1
        files = self._folder / f"{self._count}.pem", self._folder / f"{self._count}.key"
        files[0].write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        secret = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files[1].write_bytes(secret)
        files[1].chmod(0o644)  # other users of this machine run the peers
        return files
