"""TLS over memory: contexts from files, and a pipe that turns ciphertext into octets and back.

Place on the path: between the socket and the session, inside steps 1 and 10. asyncio's own TLS keeps 256 KiB
for each connection (reliability.md section 0, finding 4); ``TlsPipe`` moves at most one record at a time
through its two memory BIOs, so that they stay as small as one record.

TLS 1.2 and 1.3, no compression, renegotiation, early data, or session tickets (section 6.1 item 1).
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from comity.bindings.base import TlsCheck, TlsInfo
from comity.errors import ConfigError

_CHECKS: tuple[TlsCheck, ...] = ("name", "chain", "nothing")
_SRV_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")
_XMPP_ADDR = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")

logger = logging.getLogger(__name__)

RECORD = 16 * 1024
"""Largest plaintext of one TLS record (RFC 8446 section 5.1)."""


class TlsFailure(Exception):
    """TLS cannot go on; the alert for the peer, if any, is among the outgoing octets."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a listener needs to speak TLS as a server."""

    context: ssl.SSLContext
    server_end_point: bytes


def server_end_point(certificate: bytes) -> bytes:
    """Compute the tls-server-end-point channel binding of a DER certificate (RFC 5929 section 4.1).

    The hash is the one of the certificate's signature; MD5 and SHA-1 are replaced by SHA-256. A signature that
    uses no hash of its own, or more than one (Ed25519, Ed448), leaves the channel binding undefined: the result
    is then empty and the -PLUS mechanisms are not to be offered."""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return b""
    if algorithm is None:
        return b""
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name.replace("-", "_")
    return hashlib.new(name, certificate).digest()


def make_server_context(
    certificate: Path, key: Path, trust: Path | None = None, check: TlsCheck = "name"
) -> ssl.SSLContext:
    """Make a server's context from PEM files; blocks on the file system.

    Args:
        certificate: the server's certificate followed by those of its issuers.
        key: its private key, not encrypted.
        trust: a PEM file or directory of CAs; clients may then show a certificate, which must verify against it.
        check: "chain": they are asked for one also without ``trust``, by the system's CAs; "nothing": they never are.

    Raises:
        ConfigError: a file is missing, unreadable, not PEM, or the key belongs to another certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    _harden(context)
    _load_chain(context, certificate, key)
    if check == "nothing":
        return context
    if trust is not None:
        _load_trust(context, trust)
        context.verify_mode = ssl.CERT_OPTIONAL
    elif check == "chain":
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def make_client_context(
    trust: Path | None = None, certificate: Path | None = None, key: Path | None = None, check: TlsCheck = "name"
) -> ssl.SSLContext:
    """Make a client's context that demands a certificate valid for the server's name; blocks on the file system.

    Args:
        trust: CAs to trust instead of the system's.
        certificate: shown to a server that asks for one, with its ``key``.
        check: "chain" leaves its names to the caller, "nothing" all of it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = check == "name"
    if check == "nothing":
        context.verify_mode = ssl.CERT_NONE
    elif trust is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_trust(context, trust)
    if certificate is not None and key is not None:
        _load_chain(context, certificate, key)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _readable(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(option, f"the file {path} does not exist.", "Check the path, or run comity init.") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        cure = "Make it readable for the user Comity runs as."
        raise ConfigError(option, f"the file {path} cannot be read: {reason}.", cure) from error


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    chain = _readable("tls.certificate", certificate)
    if b"-----BEGIN CERTIFICATE-----" not in chain:
        cure = "Give a PEM file: the server's certificate first, then those of its issuers."
        raise ConfigError("tls.certificate", f"the file {certificate} holds no PEM certificate.", cure)
    if chain.count(b"-----BEGIN CERTIFICATE-----") > chain.count(b"-----END CERTIFICATE-----"):
        # OpenSSL would take what is whole and leave the rest of the chain out.
        problem = f"the file {certificate} ends inside a certificate."
        raise ConfigError("tls.certificate", problem, "It may still be being written: try again, or write it anew.")
    content = _readable("tls.key", key)
    if b"PRIVATE KEY-----" not in content:
        raise ConfigError("tls.key", f"the file {key} holds no PEM private key.", "Give the key of tls.certificate.")
    try:
        # An empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error) or "KEY_TYPE_MISMATCH" in str(error):
            problem = f"the private key in {key} does not belong to the certificate in {certificate}."
            raise ConfigError("tls.key", problem, "Give the key the certificate was requested with.") from error
        if b"ENCRYPTED" in content:
            cure = "Remove its password with: openssl pkey -in KEY -out NEWKEY"
            raise ConfigError("tls.key", f"the private key in {key} is protected by a password.", cure) from error
        problem = f"{certificate} and {key} cannot be used: {error.reason or error}."
        raise ConfigError("tls.certificate", problem, "Check both with openssl x509 and openssl pkey.") from error
    except (OSError, ValueError) as error:
        raise ConfigError("tls.certificate", f"{certificate} and {key} cannot be used: {error}.") from error


def _load_trust(context: ssl.SSLContext, trust: Path) -> None:
    try:
        if trust.is_dir():
            context.load_verify_locations(capath=trust)
            return
        _readable("tls.trust", trust)
        context.load_verify_locations(cafile=trust)
    except (ssl.SSLError, OSError) as error:
        cure = "Give a PEM file of CA certificates, or a directory made with openssl rehash."
        raise ConfigError("tls.trust", f"{trust} holds no usable CA certificates.", cure) from error


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the contexts come from."""

    certificate: Path | None = None
    """PEM file of our certificate chain, or None for a pure client."""
    key: Path | None = None
    """PEM file of its private key."""
    trust: Path | None = None
    """CAs that vouch for peers; None: the system's for servers we call, none for clients that call us."""


class TlsContexts:
    """The contexts in use, made from files that may be renewed while the server runs (F-28).

    Args:
        certificate, key, trust: see ``TlsFiles``.
        has_peers: other servers are judged in their own way: contexts for every ``TlsCheck``, not only for "name".

    Raises:
        ConfigError: the files cannot be used.
    """

    def __init__(
        self,
        certificate: Path | None = None,
        key: Path | None = None,
        trust: Path | None = None,
        *,
        has_peers: bool = False,
    ) -> None:
        self._checks = _CHECKS if has_peers else _CHECKS[:1]
        self._files = TlsFiles(certificate, key, trust)
        self.servers: dict[TlsCheck, ServerTls] = {}
        """For connections accepted from now on; those made earlier keep theirs. None without a certificate."""
        self.expires: datetime | None = None
        """When our certificate ends (aware UTC)."""
        self.clients: dict[TlsCheck, ssl.SSLContext]
        self._load(self._files, is_first=True)

    @property
    def server(self) -> ServerTls | None:
        """For everybody but other servers."""
        return self.servers.get("name")

    @property
    def client(self) -> ssl.SSLContext:
        """For servers that are judged by their name."""
        return self.clients["name"]

    def reload(self, files: TlsFiles | None = None) -> None:
        """Read the files again, or others; on ConfigError everything stays as it was. Blocks on the file system."""
        files = files or self._files
        self._load(files, is_first=False)
        self._files = files

    def _load(self, files: TlsFiles, *, is_first: bool) -> None:
        servers: dict[TlsCheck, ServerTls] = {}
        expires = None
        if files.certificate is not None and files.key is not None:
            before = _readable("tls.certificate", files.certificate)
            contexts = {
                check: make_server_context(files.certificate, files.key, files.trust, check) for check in self._checks
            }
            certificate = x509.load_pem_x509_certificate(before)
            expires = certificate.not_valid_after_utc
            if expires <= datetime.now(UTC):
                problem = f"the certificate in {files.certificate} expired on {expires:%Y-%m-%d %H:%M} UTC."
                if not is_first:
                    raise ConfigError("tls.certificate", problem, "The one in use stays; renew the file.")
                logger.warning("tls.certificate: %s Peers will refuse it; renew it and reload.", problem)
            end_point = server_end_point(certificate.public_bytes(Encoding.DER))
            servers = {check: ServerTls(context, end_point) for check, context in contexts.items()}
        clients = {
            check: make_client_context(files.trust, files.certificate, files.key, check) for check in self._checks
        }
        if files.certificate is not None and servers and before != files.certificate.read_bytes():
            # The channel binding would be another certificate's than the one shown.
            problem = f"the file {files.certificate} was written while it was read."
            raise ConfigError("tls.certificate", problem, "Reload when it is whole.")
        self.servers, self.clients, self.expires = servers, clients, expires


class TlsPipe:
    """One TLS connection between octets of the wire and octets of the session; knows no socket.

    Every method but ``feed`` may leave octets in ``outgoing``; take them afterwards. TlsFailure ends it.
    """

    __slots__ = ("_end_point", "_incoming", "_object", "_outgoing", "is_ready", "is_server")

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None = None, end_point: bytes = b"") -> None:
        self.is_server = context.protocol == ssl.PROTOCOL_TLS_SERVER
        self.is_ready = False
        self._end_point = end_point
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(
                self._incoming, self._outgoing, server_side=self.is_server, server_hostname=server_name
            )
        except ValueError as error:
            raise TlsFailure(f"{server_name!r} is not a host name") from error

    def feed(self, data: bytes | memoryview) -> None:
        """Take ciphertext; small pieces keep the buffer small."""
        self._incoming.write(data)

    def handshake(self) -> bool:
        """Go on with the handshake: True when it is complete."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsFailure(_reason(error)) from error
        self.is_ready = True
        return True

    def read(self) -> bytes | None:
        """Up to one record of plaintext; b"" at the peer's close_notify; None if there is no whole record."""
        try:
            return self._object.read(RECORD)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            raise TlsFailure(_reason(error)) from error

    def write(self, data: bytes) -> bytes:
        """Encrypt ``data``, record by record."""
        view = memoryview(data)
        records = []
        try:
            while view:
                view = view[self._object.write(view[:RECORD]) :]
                records.append(self._outgoing.read())
        except ssl.SSLError as error:
            raise TlsFailure(_reason(error)) from error
        return records[0] if len(records) == 1 else b"".join(records)

    def outgoing(self) -> bytes:
        """Octets of TLS's own to send: handshake, alerts, key updates."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close_notify(self) -> None:
        """Tell the peer that no more will come."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            # Expected: the peer has not answered yet, and will not be waited for here; the alert is on its way.
            return

    def info(self) -> TlsInfo:
        """What the finished handshake proved."""
        peer = self._object.getpeercert(binary_form=True)
        proved = self._object.getpeercert()  # empty if nobody looked whether it verifies
        cipher = self._object.cipher()
        return TlsInfo(
            version=self._object.version() or "",
            cipher=cipher[0] if cipher else "",
            server_end_point=self._end_point if self.is_server else server_end_point(peer or b""),
            peer_certificate=peer if proved else None,
            names=_names(proved),
            **_other_names(peer if proved else None),
        )


def _names(certificate: Mapping[str, object] | None) -> tuple[str, ...]:
    """dNSName entries of a certificate that verified, as Python's ssl decodes it."""
    entries = (certificate or {}).get("subjectAltName", ())
    assert isinstance(entries, tuple)
    return tuple(value for kind, value in entries if kind == "DNS")


class _Others(TypedDict, total=False):
    service_names: tuple[str, ...]
    xmpp_names: tuple[str, ...]
    ends: datetime


@lru_cache(maxsize=1024)
def _other_names(certificate: bytes | None) -> _Others:
    """What ``TlsInfo`` says of a certificate besides its dNSNames."""
    if certificate is None:
        return {}
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        others = names.get_values_for_type(x509.OtherName)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        return {}  # it names nobody, then
    return {
        "service_names": tuple(_string(other.value) for other in others if other.type_id == _SRV_NAME),
        "xmpp_names": tuple(_string(other.value) for other in others if other.type_id == _XMPP_ADDR),
        "ends": parsed.not_valid_after_utc,
    }


def _string(der: bytes) -> str:
    """An IA5String or UTF8String of less than 128 octets; "" for anything else."""
    if len(der) < 2 or der[0] not in (0x0C, 0x16) or der[1] != len(der) - 2 or der[1] > 127:
        return ""
    try:
        return der[2:].decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _reason(error: ssl.SSLError) -> str:
    """Say in words what OpenSSL says in capitals."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate does not verify: {error.verify_message}"
    return (error.reason or "TLS error").replace("_", " ").lower()
