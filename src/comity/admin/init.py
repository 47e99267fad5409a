"""``comity init``: a commented configuration, a local certificate authority and a server certificate.

Place on the path: before it. Files are made with mode 0600, directories with 0700, and nothing that exists is
overwritten. The authority is for trials and for closed networks: its key stays in the data directory and signs
only what this module makes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from comity.admin.template import configuration_text
from comity.config.machine import SRV_NAME
from comity.config.values import canonical_domain
from comity.errors import ConfigError

#: The longest life that current clients accept of a server certificate.
LIFE_DAYS = 825
SERVICES = ("xmpp-client", "xmpp-server", "sip", "sips")


@dataclass(frozen=True, slots=True)
class Initialised:
    """What ``init`` made."""

    files: tuple[Path, ...]
    expires: datetime
    """When the server certificate ends; aware UTC."""


def init(directory: Path, domains: Sequence[str], lan: IPv4Network | IPv6Network | None = None) -> Initialised:
    """Make everything a first start needs below ``directory``.

    Args:
        directory: made if it is not there.
        domains: domains to serve, as the configuration file takes them; at least one.
        lan: network whose devices may sign in by unencrypted SIP.

    Raises:
        ConfigError: something is already there, or the directory cannot be written.
    """
    configuration = directory / "comity.toml"
    _refuse_existing(configuration, "Edit it, or name another directory.")
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        made = init_certificates(directory / "data", domains)
        _write_private(configuration, configuration_text(domains, lan).encode("utf-8"))
    except OSError as error:
        raise _unwritable(directory, error) from error
    return Initialised((configuration, *made.files), made.expires)


def init_certificates(data: Path, domains: Sequence[str]) -> Initialised:
    """Make only the local authority and the server certificate, below ``data/tls``.

    Raises:
        ConfigError: one of the files is already there, or the directory cannot be written.
    """
    folder = data / "tls"
    names = ("ca.pem", "ca.key", "server.pem", "server.key")
    for name in names:
        _refuse_existing(folder / name, "Keep it, or move it away first.")
    now = datetime.now(UTC)
    authority_key, authority = _authority(domains[0], now)
    server_key, server = _server_certificate(domains, now, authority_key, authority)
    pem = serialization.Encoding.PEM
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_private(folder / "ca.key", _key_pem(authority_key))
        _write_private(folder / "ca.pem", authority.public_bytes(pem))
        _write_private(folder / "server.key", _key_pem(server_key))
        _write_private(folder / "server.pem", server.public_bytes(pem) + authority.public_bytes(pem))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return Initialised(tuple(folder / name for name in names), server.not_valid_after_utc)


def _refuse_existing(path: Path, cure: str) -> None:
    if path.exists() or path.is_symlink():
        raise ConfigError(str(path), "is already there; nothing was changed.", cure)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    problem = f"cannot be written: {error.strerror}."
    return ConfigError(str(error.filename or path), problem, "Name a directory that you may write to.")


def _write_private(path: Path, octets: bytes) -> None:
    """Make ``path`` anew with mode 0600; O_EXCL so that nothing is ever overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(octets)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    # CN is for people only (nothing here reads it) and may not be longer than 64 characters.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _authority(domain: str, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Comity local authority of {domain}")
    builder = _builder(name, name, key, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return key, builder.sign(key, hashes.SHA256())


def _server_certificate(
    domains: Sequence[str], now: datetime, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(domains[0]), authority.subject, key, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    # Client use too: a server is the client of its peers' servers, and shows the same certificate there.
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(usage, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternative_names(domains)), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    return key, builder.sign(authority_key, hashes.SHA256())


def alternative_names(domains: Sequence[str]) -> list[x509.GeneralName]:
    """Names of a server for ``domains``: DNS, one SRVName a service (RFC 4985), and localhost for trials."""
    labels = [canonical_domain(domain) for domain in domains]
    names: list[x509.GeneralName] = [x509.DNSName(label) for label in labels]
    for label in labels:
        for service in SERVICES:
            text = f"_{service}.{label}".encode("ascii")
            names.append(x509.OtherName(SRV_NAME, _ia5_string(text)))
    names += [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
    return names


def _ia5_string(text: bytes) -> bytes:
    """DER of an IA5String; a DNS name is at most 253 octets, so the length takes one octet or two."""
    length = bytes([len(text)]) if len(text) < 0x80 else bytes([0x81, len(text)])
    return b"\x16" + length + text


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back: clocks of phones differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=LIFE_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
