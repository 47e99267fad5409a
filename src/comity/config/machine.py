"""Can the configuration work on this machine? Files, certificates and the data directory, each doubt a sentence.

Place on the path: before it, at ``comity serve`` and ``comity config check``. Looks, changes nothing. Ports are
not tried here: whether one is free is known when it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import idna
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from comity.config.sections import Config
from comity.errors import ConfigError

#: SRVName in a SubjectAltName (RFC 4985).
SRV_NAME = ObjectIdentifier("1.3.6.1.5.5.7.8.7")

#: File systems on which SQLite's locks or fsync cannot be trusted (B-01).
NETWORK_FILE_SYSTEMS = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "prl_fs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "vmhgfs",
    ]
)


def machine_mistakes(config: Config) -> list[ConfigError]:
    """Everything about this machine that would stop a server with ``config``."""
    return [*_data_mistakes(config), *_tls_mistakes(config), *_anchor_mistakes(config)]


def _anchor_mistakes(config: Config) -> Iterator[ConfigError]:
    trust, key = config.security.trust, "security.trust"
    if trust is None:
        return
    try:
        x509.load_pem_x509_certificates(trust.read_bytes())
    except OSError as error:
        cure = "Write the path of a PEM file that this user may read."
        yield ConfigError(key, f"{trust} cannot be read: {error.strerror}.", cure, where=config.where(key))
    except ValueError:
        cure = "Write a PEM file with the certificates of one or more authorities."
        yield ConfigError(key, f"{trust} holds no certificate.", cure, where=config.where(key))


def needs_certificate(config: Config) -> bool:
    """True if any listener speaks TLS, at once or by STARTTLS."""
    return any(item.transport == "tls" or not key.startswith(("sip.", "web.")) for key, item in config.listeners())


def file_system_of(path: Path, mountinfo: str) -> str:
    """Type of the file system that holds ``path``, by the text of /proc/self/mountinfo; "" if unknown."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split(" ")[4].replace("\\040", " ") if before.count(" ") >= 4 else ""
        inside = mount == "/" or str(path) == mount or str(path).startswith(mount + "/")
        if mount and inside and len(mount) >= len(best) and after:
            best, kind = mount, after.split(" ")[0]
    return kind


def _data_mistakes(config: Config) -> Iterator[ConfigError]:
    data, key = config.server.data, "server.data"
    where = config.where(key)
    if data.exists() and not data.is_dir():
        yield ConfigError(key, f"{data} is not a directory.", "Name a directory of the server's own.", where=where)
        return
    existing = data
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        problem = f"this user may not write to {existing}."
        cure = f"Give it to the server's user (chown USER {existing}), or name another directory."
        yield ConfigError(key, problem, cure, where=where)
    if existing == data and data.stat().st_mode & 0o077:
        problem = f"{data} is open to other users of this machine, and it holds password equivalents."
        yield ConfigError(key, problem, f"Close it: chmod 700 {data}", where=where)
    kind = _file_system(existing)
    if kind in NETWORK_FILE_SYSTEMS:
        problem = f"{data} is on a network file system ({kind}), where a crash can lose accepted messages."
        yield ConfigError(key, problem, "Name a directory on a local disk.", where=where)


def _file_system(path: Path) -> str:
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: nothing is known, nothing is claimed
        return ""
    return file_system_of(path.resolve(), mountinfo)


def _tls_mistakes(config: Config) -> Iterator[ConfigError]:
    if config.tls.trust is not None:
        _, mistake = _certificates(config, "tls.trust", config.tls.trust)
        if mistake:
            yield mistake
    if not needs_certificate(config):
        return
    chain, mistake = _certificates(config, "tls.certificate", config.tls.certificate)
    if mistake:
        yield mistake
    public, mistake = _public_key(config)
    if mistake:
        yield mistake
    if chain:
        yield from _validity_mistakes(config, chain[0])
        if public and public != chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
            problem = f"{config.tls.key} is not the key of {config.tls.certificate}."
            cure = "Name the two files that were made together; the server's certificate stands first in its file."
            yield ConfigError("tls.key", problem, cure, where=config.where("tls.key"))


def _read(config: Config, key: str, path: Path) -> tuple[bytes, ConfigError | None]:
    try:
        return path.read_bytes(), None
    except FileNotFoundError:
        folder = config.path.parent
        cure = f"Name the file, or make a local one to start with: comity init {folder} --certificates"
        return b"", ConfigError(key, f"there is no file {path}.", cure, where=config.where(key))
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}."
        return b"", ConfigError(key, problem, "Let the server's user read it.", where=config.where(key))


def _certificates(config: Config, key: str, path: Path) -> tuple[list[x509.Certificate], ConfigError | None]:
    octets, mistake = _read(config, key, path)
    if mistake:
        return [], mistake
    try:
        if octets.count(b"-----BEGIN CERTIFICATE-----") > octets.count(b"-----END CERTIFICATE-----"):
            cure = "It may still be being written: try again, or write it anew."
            return [], ConfigError(key, f"{path} ends inside a certificate.", cure, where=config.where(key))
        return x509.load_pem_x509_certificates(octets), None
    except ValueError:
        cure = "It must begin with -----BEGIN CERTIFICATE-----; `openssl x509 -inform DER` turns DER into PEM."
        return [], ConfigError(key, f"{path} holds no readable PEM certificate.", cure, where=config.where(key))


def _public_key(config: Config) -> tuple[bytes, ConfigError | None]:
    octets, mistake = _read(config, "tls.key", config.tls.key)
    if mistake:
        return b"", mistake
    problem, cure = "", ""
    try:
        key = load_pem_private_key(octets, None)
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), None
    except TypeError:
        problem = f"{config.tls.key} is locked with a passphrase."
        cure = "Unlock it (openssl pkey -in KEY -out NEW) and protect the new file: chmod 600."
    except (ValueError, AttributeError):
        problem = f"{config.tls.key} holds no readable PEM private key."
        cure = "It must begin with -----BEGIN PRIVATE KEY-----."
    return b"", ConfigError("tls.key", problem, cure, where=config.where("tls.key"))


def _validity_mistakes(config: Config, certificate: x509.Certificate) -> Iterator[ConfigError]:
    key, path = "tls.certificate", config.tls.certificate
    where = config.where(key)
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        problem = f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}."
        yield ConfigError(key, problem, "Renew it and write the new file here.", where=where)
    if now < certificate.not_valid_before_utc:
        problem = f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC."
        yield ConfigError(key, problem, "Look at this machine's clock (`date`).", where=where)
    names = certificate_names(certificate)
    for domain in config.server.domains:
        if not covers(names, domain):
            listed = ", ".join(names) or "no name at all"
            problem = f"{path} does not cover {domain}: it names {listed}."
            cure = "Get one whose subjectAltName lists every served domain; CN is not read."
            yield ConfigError(key, problem, cure, where=where)


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """DNS names of the SubjectAltName, lower case; the name inside an SRVName counts (RFC 6125 section 6.4)."""
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except (x509.ExtensionNotFound, ValueError):
        return []
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    names = [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    for other in extension.value.get_values_for_type(x509.OtherName):
        if other.type_id == SRV_NAME:
            service, _, host = other.value[2:].decode("ascii", "replace").lower().partition(".")
            names.append(host if service.startswith("_") else "")
    return list(dict.fromkeys(name for name in names if name))


def covers(names: list[str], domain: str) -> bool:
    """True if one of ``names`` is ``domain``, or ``*.`` and all of it but its first label."""
    a_label = idna.encode(domain, uts46=True).decode("ascii").lower()
    return a_label in names or "*." + a_label.partition(".")[2] in names
