"""The table of docs/reference/security-peers-openpgp.md: what gpg, rpgp and Comity read of each other, tried with both.

Run ``PYTHONPATH=src python -m tests.secure.pgp_matrix`` to write the page anew; ``test_openpgp_matrix.py`` runs everything and
compares. A cell without "yes" needs a reason here, and a reason needs such a cell.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pysequoia
from openpgp import composed
from openpgp.errors import Error as RpgpError

from comity.errors import MalformedMessage, SecurityError
from comity.secure import TrustStore, openpgp
from comity.secure.openpgp import PgpIdentity
from tests.secure.pgpkit import Gpg, PeerRefused, gpg_home, now

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "security-peers-openpgp.md"
COLUMNS = ("gpg reads ours", "we read gpg's", "rpgp reads ours", "we read rpgp's")
GPG_OURS, GPG_THEIRS, RPGP_OURS, RPGP_THEIRS = COLUMNS
DATA = b"Content-Type: text/plain\r\n\r\nWatson, come here.\r\n"
UID = "im:alice@a.test"

rpgp: Any = composed
"""Its own types want the very strings of its tables, which a table of ours does not have."""

_SUITES = pysequoia.CipherSuite
_K: Any = composed.KeyType


class Kind(NamedTuple):
    """One kind of key, as each program makes it; None where it cannot."""

    suite: Any = None
    is_v6: bool = False
    gpg: tuple[str, str] | None = None
    rpgp: tuple[Any, Any, int] | None = None


KINDS = {
    "Curve25519": Kind(
        _SUITES.Cv25519, gpg=("ed25519", "cv25519"), rpgp=(_K.ed25519_legacy(), _K.ecdh("curve25519"), 4)
    ),
    "P-256": Kind(_SUITES.P256, gpg=("nistp256", "nistp256"), rpgp=(_K.ecdsa("p256"), _K.ecdh("p256"), 4)),
    "P-384": Kind(_SUITES.P384, gpg=("nistp384", "nistp384"), rpgp=(_K.ecdsa("p384"), _K.ecdh("p384"), 4)),
    "P-521": Kind(_SUITES.P521, gpg=("nistp521", "nistp521"), rpgp=(_K.ecdsa("p521"), _K.ecdh("p521"), 4)),
    "brainpoolP256r1": Kind(gpg=("brainpoolP256r1", "brainpoolP256r1")),
    "RSA 2048": Kind(_SUITES.RSA2k, gpg=("rsa2048", "rsa2048"), rpgp=(_K.rsa(2048), _K.rsa(2048), 4)),
    "RSA 3072": Kind(_SUITES.RSA3k, gpg=("rsa3072", "rsa3072"), rpgp=(_K.rsa(3072), _K.rsa(3072), 4)),
    "RSA 1024": Kind(gpg=("rsa1024", "rsa1024")),
    "DSA 2048, ElGamal 2048": Kind(gpg=("dsa2048", "elg2048")),
    "Ed25519 and X25519 of RFC 9580, version 4": Kind(rpgp=(_K.ed25519(), _K.x25519(), 4)),
    "Ed25519 and X25519, version 6": Kind(_SUITES.Cv25519, True, rpgp=(_K.ed25519(), _K.x25519(), 6)),
    "Ed448 and X448, version 6": Kind(_SUITES.Cv448, True, rpgp=(_K.ed448(), _K.x448(), 6)),
    "P-256, version 6": Kind(_SUITES.P256, True, rpgp=(_K.ecdsa("p256"), _K.ecdh("p256"), 6)),
    "RSA 3072, version 6": Kind(_SUITES.RSA3k, True, rpgp=(_K.rsa(3072), _K.rsa(3072), 6)),
}


@cache
def ours(kind: str) -> PgpIdentity:
    """A key as ``new_identity`` makes it, of that kind."""
    profile = pysequoia.Profile.RFC9580 if KINDS[kind].is_v6 else pysequoia.Profile.RFC4880
    tsk = pysequoia.Tsk.generate(user_ids=[UID], profile=profile, cipher_suite=KINDS[kind].suite)
    return openpgp.read_identity(bytes(tsk))


@cache
def theirs(kind: str) -> Any:
    """A key that rpgp made."""
    signing, encryption, version = KINDS[kind].rpgp or (None, None, 4)
    subkey = rpgp.SubkeyParamsBuilder().version(version).key_type(encryption).can_encrypt(rpgp.EncryptionCaps.all())
    key = rpgp.SecretKeyParamsBuilder().version(version).key_type(signing).can_sign(True).can_certify(True)
    key = key.primary_user_id(UID).feature_seipd_v1(True).feature_seipd_v2(version == 6)
    return key.subkey(subkey.build()).generate()


class Peers:
    """gpg with what it made, kept for all rows."""

    def __init__(self, gpg: Gpg) -> None:
        self.gpg = gpg
        self._keys: dict[str, tuple[str, bytes]] = {}

    def key(self, kind: str) -> tuple[str, bytes]:
        """Fingerprint and certificate of a key that gpg made."""
        if kind not in self._keys:
            user_id = f"{kind} <{UID}>"
            signing, encryption = KINDS[kind].gpg or ("", "")
            self._keys[kind] = (
                self.gpg.new_key(user_id, kind=signing, subkey=encryption),
                self.gpg.fingerprint(user_id),
            )[::-1]
        return self._keys[kind]


def _try(make: Callable[[], bytes] | None, read: Callable[[bytes], object]) -> str:
    """ "yes" if it is read, "not written" if the writer has none or refuses, "no" if the reader does."""
    if make is None:
        return "not written"
    try:
        made = make()
    except (PeerRefused, SecurityError, RpgpError):
        return "not written"
    try:
        return "yes" if read(made) else "no"
    except (PeerRefused, SecurityError, MalformedMessage, RpgpError):
        return "no"


# --- signatures --------------------------------------------------------------------------------------------------


def _we_verify(signature: bytes, certificate: bytes) -> bool:
    (signer,) = openpgp.signers_of(DATA, signature, TrustStore(openpgp_pinned=(certificate,)), now())
    return not signer.distrust


def _gpg_verifies(gpg: Gpg, signature: bytes) -> bool:
    files = [gpg.home / "signature", gpg.home / "content"]
    for file, octets in zip(files, (signature, DATA), strict=True):
        file.write_bytes(octets)
    return "VALIDSIG" in gpg.status("--verify", *map(str, files))


def rpgp_verifies(signature: bytes, content: bytes, certificate: bytes) -> bool:
    parsed, _ = rpgp.DetachedSignature.from_armor(signature.decode())
    key = rpgp.SignedPublicKey.from_bytes(certificate)
    for candidate in (key, *key.public_subkeys):
        try:
            parsed.verify(candidate, content)
        except (RpgpError, TypeError):
            continue
        return True
    return False


def signature_row(peers: Peers, kind: str, *options: str, digest: str = "", is_text: bool = False) -> list[str]:
    """Detached signatures by a key of that kind."""
    has = KINDS[kind]
    own = ours(kind) if has.suite is not None and not options and not digest and not is_text else None
    gpg = peers.gpg

    def by_us() -> bytes:
        assert own is not None
        return openpgp.sign_detached(DATA, own)

    def by_gpg() -> bytes:
        return gpg("--local-user", peers.key(kind)[0], *options, "--detach-sign", stdin=DATA)

    def by_rpgp() -> bytes:
        make = rpgp.DetachedSignature.sign_text_data if is_text else rpgp.DetachedSignature.sign_binary_data
        made: bytes = make(random.SystemRandom(), theirs(kind), None, digest or "sha512", DATA).to_bytes()
        return made

    def gpg_reads(signature: bytes) -> bool:
        assert own is not None
        gpg("--import", stdin=own.certificate)
        return _gpg_verifies(gpg, signature)

    mine = None if own is None else by_us
    return [
        _try(mine, gpg_reads),
        _try(by_gpg if has.gpg else None, lambda made: _we_verify(made, peers.key(kind)[1])),
        _try(mine, lambda made: own is not None and rpgp_verifies(made, DATA, own.certificate)),
        _try(by_rpgp if has.rpgp else None, lambda made: _we_verify(made, theirs(kind).to_public_key().to_bytes())),
    ]


# --- encrypted ---------------------------------------------------------------------------------------------------


def _we_open(octets: bytes, identity: PgpIdentity, certificate: bytes | None) -> bool:
    trust = TrustStore(openpgp_pinned=(certificate,) if certificate else ())
    opened, signers = openpgp.open_message(octets, [identity], trust, now())
    return opened.entity == DATA and [one.distrust for one in signers] == ([] if certificate is None else [""])


def rpgp_key(identity: PgpIdentity) -> Any:
    """The subkey of our certificate that rpgp encrypts to."""
    key = rpgp.SignedPublicKey.from_bytes(identity.certificate)
    kinds = ("ecdh", "rsa", "x25519", "x448")
    return next(subkey for subkey in reversed(key.public_subkeys) if subkey.key.public_params.kind.lower() in kinds)


def recipient_row(peers: Peers, kind: str) -> list[str]:
    """Each side encrypts to a key that the other made, in the way it does by itself."""
    has = KINDS[kind]
    gpg = peers.gpg

    def for_gpg() -> bytes:
        return openpgp.seal(DATA, [peers.key(kind)[1]], when=now())

    def by_gpg() -> bytes:
        gpg("--import", stdin=ours(kind).certificate)
        return gpg("--recipient", ours(kind).fingerprint, "--encrypt", stdin=DATA)

    def for_rpgp() -> bytes:
        return openpgp.seal(DATA, [theirs(kind).to_public_key().to_bytes()], when=now())

    def by_rpgp() -> bytes:
        builder = rpgp.MessageBuilder.from_bytes("", DATA)
        builder = builder.seipd_v2("aes256", "ocb") if has.is_v6 else builder.seipd_v1("aes256")
        made: bytes = builder.encrypt_to_key(rpgp_key(ours(kind))).to_vec()
        return made

    def rpgp_opens(octets: bytes) -> bool:
        found: bytes = rpgp.Message.from_armor(octets.decode())[0].decrypt(None, theirs(kind)).as_data_vec()
        return found == DATA

    return [
        _try(for_gpg if has.gpg else None, lambda made: gpg("--decrypt", stdin=made) == DATA),
        _try(by_gpg if has.suite is not None else None, lambda made: _we_open(made, ours(kind), None)),
        _try(for_rpgp if has.rpgp else None, rpgp_opens),
        _try(by_rpgp if has.suite is not None else None, lambda made: _we_open(made, ours(kind), None)),
    ]


def content_row(
    peers: Peers, gpg_options: list[str] | None, change: Callable[[Any], Any] | None, form: str
) -> list[str]:
    """Messages in that form, by and for Curve25519 keys; ``form``: "v1", "v2" or "" if we do not write it."""
    kind = "Curve25519"
    gpg, mine = peers.gpg, ours(kind)
    is_signed = "--sign" in (gpg_options or ())
    fingerprint, certificate = peers.key(kind)

    def for_gpg() -> bytes:
        return openpgp.seal(
            DATA, [certificate if form == "v1" else mine.certificate], mine if is_signed else None, when=now()
        )

    def by_gpg() -> bytes:
        gpg("--import", stdin=mine.certificate)
        options = gpg_options or []
        return gpg("--local-user", fingerprint, "--recipient", mine.fingerprint, *options, "--encrypt", stdin=DATA)

    def gpg_opens(octets: bytes) -> bool:
        if form == "v2":
            gpg("--import", stdin=mine.secret)
        return gpg("--decrypt", stdin=octets) == DATA

    def for_rpgp() -> bytes:
        to = theirs(kind).to_public_key().to_bytes() if form == "v1" else mine.certificate
        return openpgp.seal(DATA, [to], mine if is_signed else None, when=now())

    def rpgp_opens(octets: bytes) -> bool:
        reader = theirs(kind) if form == "v1" else rpgp.SignedSecretKey.from_bytes(mine.secret)
        opened = rpgp.Message.from_armor(octets.decode())[0].decrypt(None, reader)
        found: bytes = opened.as_data_vec()
        return found == DATA and opened.is_signed == is_signed

    def by_rpgp() -> bytes:
        assert change is not None
        builder = change(rpgp.MessageBuilder.from_bytes("", DATA))
        if is_signed:
            builder = builder.sign(theirs(kind))
        made: bytes = builder.to_vec()
        return made

    signer_of_rpgp = theirs(kind).to_public_key().to_bytes() if is_signed else None
    return [
        _try(for_gpg if form else None, gpg_opens),
        _try(
            None if gpg_options is None else by_gpg,
            lambda made: _we_open(made, mine, certificate if is_signed else None),
        ),
        _try(for_rpgp if form else None, rpgp_opens),
        _try(None if change is None else by_rpgp, lambda made: _we_open(made, mine, signer_of_rpgp)),
    ]


def _to(builder: Any) -> Any:
    return builder.encrypt_to_key(rpgp_key(ours("Curve25519")))


def _seipd1(cipher: str) -> Callable[[Any], Any]:
    return lambda builder: _to(builder.seipd_v1(cipher))


def _seipd2(mode: str) -> Callable[[Any], Any]:
    return lambda builder: _to(builder.seipd_v2("aes256", mode))


def _compressed(method: str) -> Callable[[Any], Any]:
    return lambda builder: _to(builder.seipd_v1("aes256").compression(method))


def _anonymous(builder: Any) -> Any:
    return builder.seipd_v1("aes256").encrypt_to_key_anonymous(rpgp_key(ours("Curve25519")))


Row = Callable[[Peers], list[str]]
PLAIN = ["--compress-algo", "none"]

SECTIONS: dict[str, dict[str, Row]] = {
    "Signatures (detached, SHA-512 where nothing else is said)": {
        **{kind: partial(signature_row, kind=kind) for kind in KINDS},
        "Curve25519, SHA-256": lambda peers: signature_row(
            peers, "Curve25519", "--digest-algo", "SHA256", digest="sha256"
        ),
        "Curve25519, as text": lambda peers: signature_row(peers, "Curve25519", "--textmode", is_text=True),
        "Curve25519, SHA-1": lambda peers: signature_row(peers, "Curve25519", "--digest-algo", "SHA1", digest="sha1"),
        "P-384, SHA-256": lambda peers: signature_row(peers, "P-384", "--digest-algo", "SHA256", digest="sha256"),
    },
    "Recipients": {kind: partial(recipient_row, kind=kind) for kind, has in KINDS.items() if has.suite or has.rpgp},
    "Forms of encrypted messages (for Curve25519)": {
        "version 1 with MDC, AES-256": lambda peers: content_row(peers, PLAIN, _seipd1("aes256"), "v1"),
        "version 1 with MDC, AES-128": lambda peers: content_row(
            peers, [*PLAIN, "--cipher-algo", "AES128"], _seipd1("aes128"), ""
        ),
        "version 1 with MDC, Camellia-256": lambda peers: content_row(
            peers, ["--cipher-algo", "CAMELLIA256"], _seipd1("camellia256"), ""
        ),
        "version 1 with MDC, triple DES": lambda peers: content_row(
            peers, ["--cipher-algo", "3DES"], _seipd1("triple-des"), ""
        ),
        "version 2, OCB": lambda peers: content_row(peers, None, _seipd2("ocb"), "v2"),
        "version 2, GCM": lambda peers: content_row(peers, None, _seipd2("gcm"), ""),
        "version 2, EAX": lambda peers: content_row(peers, None, _seipd2("eax"), ""),
        "signed inside (RFC 3156 section 6.2)": lambda peers: content_row(
            peers, ["--sign", *PLAIN], _seipd1("aes256"), "v1"
        ),
        "signed inside, compressed": lambda peers: content_row(
            peers, ["--sign", "--compress-algo", "zip"], _compressed("zip"), ""
        ),
        "compressed by ZLIB": lambda peers: content_row(peers, ["--compress-algo", "zlib"], _compressed("zlib"), ""),
        "compressed by BZip2": lambda peers: content_row(peers, ["--compress-algo", "bzip2"], _compressed("bzip2"), ""),
        "recipient not named": lambda peers: content_row(peers, ["--throw-keyids"], _anonymous, ""),
    },
}

NO_KEYS = "Comity makes no such keys."
NO_V6 = "gpg 2.2 has nothing of RFC 9580: no version 6, none of the new kinds of keys."
NO_AEAD = "gpg 2.2 has no version 2 (AEAD). Comity writes it only to certificates that announce it, which gpg's do not."
READ_ONLY = (
    "Comity reads it and writes one form: a binary signature with SHA-512; AES-256, not compressed, recipients named."
)
WEAK = "Not checked: it proves nothing any more (RFC 9580 sections 9.5 and 12.4)."
OLD_CIPHER = "Only AES is read; everything else gets the one text of what cannot be decrypted."
GPG_ONLY = "Tried with gpg only."
BRAINPOOL = "Not checked: pysequoia as it is on PyPI has no brainpool curves."
EAX = "Not read: `cryptography` has no EAX; RFC 9580 section 9.6 makes OCB the one that everybody has."
SHORT_HASH = "Neither gpg nor rpgp signs with a hash that is shorter than the curve."
NO_SHA1 = "rpgp signs nothing with it."
_NEITHER = {GPG_OURS: NO_KEYS, RPGP_OURS: NO_KEYS, RPGP_THEIRS: GPG_ONLY}
_V6 = {GPG_OURS: NO_V6, GPG_THEIRS: NO_V6}
_READ = {GPG_OURS: READ_ONLY, RPGP_OURS: READ_ONLY}
#: Row → reasons by column.
REASONS: dict[str, dict[str, str]] = {
    "brainpoolP256r1": {**_NEITHER, GPG_THEIRS: BRAINPOOL},
    "RSA 1024": {**_NEITHER, GPG_THEIRS: WEAK},
    "DSA 2048, ElGamal 2048": _NEITHER,
    "Ed25519 and X25519 of RFC 9580, version 4": {**_V6, RPGP_OURS: NO_KEYS, RPGP_THEIRS: NO_KEYS},
    "Ed25519 and X25519, version 6": _V6,
    "Ed448 and X448, version 6": _V6,
    "P-256, version 6": _V6,
    "RSA 3072, version 6": _V6,
    "Curve25519, SHA-256": _READ,
    "Curve25519, as text": _READ,
    "Curve25519, SHA-1": {**_READ, GPG_THEIRS: WEAK, RPGP_THEIRS: NO_SHA1},
    "P-384, SHA-256": {**_READ, GPG_THEIRS: SHORT_HASH, RPGP_THEIRS: SHORT_HASH},
    "version 1 with MDC, AES-128": _READ,
    "version 1 with MDC, Camellia-256": {**_READ, GPG_THEIRS: OLD_CIPHER, RPGP_THEIRS: OLD_CIPHER},
    "version 1 with MDC, triple DES": {**_READ, GPG_THEIRS: OLD_CIPHER, RPGP_THEIRS: OLD_CIPHER},
    "version 2, OCB": {GPG_OURS: NO_AEAD, GPG_THEIRS: NO_AEAD},
    "version 2, GCM": {**_READ, GPG_THEIRS: NO_AEAD},
    "version 2, EAX": {**_READ, GPG_THEIRS: NO_AEAD, RPGP_THEIRS: EAX},
    "signed inside, compressed": _READ,
    "compressed by ZLIB": _READ,
    "compressed by BZip2": _READ,
    "recipient not named": _READ,
}


def results() -> dict[tuple[str, str, str], str]:
    """Try everything: (section, row, column) → outcome."""
    with gpg_home() as gpg:
        peers = Peers(gpg)
        return {
            (title, name, column): cell
            for title, rows in SECTIONS.items()
            for name, row in rows.items()
            for column, cell in zip(COLUMNS, row(peers), strict=True)
        }


# --- the page ----------------------------------------------------------------------------------------------------

HEAD = """# OpenPGP peers

<!-- written by python -m tests.secure.pgp_matrix; run it again when a cell changes -->

What Comity and two other programs read of each other: `gpg` of Debian 12 (GnuPG 2.2) and rpgp (`rpgp-py`), beside pysequoia,
with which Comity signs, encrypts and verifies. `tests/secure/test_openpgp_matrix.py` tries every cell again and compares it
with this page. S/MIME has [a page of its own](security-peers.md).

*yes*: read, and the octets are the same. *no*: the reader refuses. *not written*: the writer has no such thing, or refuses.
"""


def render(outcomes: dict[tuple[str, str, str], str]) -> str:
    """The page; every cell that is not "yes" points to its reason.

    Raises:
        KeyError: a cell lacks a reason.
        ValueError: a reason lacks a cell.
    """
    notes: list[str] = []
    used: set[tuple[str, str]] = set()
    lines = [HEAD]
    for title, rows in SECTIONS.items():
        lines += [f"## {title}\n", f"| | {' | '.join(COLUMNS)} |", "|---|---|---|---|---|"]
        for name in rows:
            shown: list[str] = []
            for column in COLUMNS:
                outcome = outcomes[title, name, column]
                if outcome == "yes":
                    shown.append(outcome)
                    continue
                reason = REASONS[name][column]
                used.add((name, column))
                if reason not in notes:
                    notes.append(reason)
                shown.append(f"{outcome} ({notes.index(reason) + 1})")
            lines.append(f"| {name} | {' | '.join(shown)} |")
        lines.append("")
    unused = {(name, column) for name, reasons in REASONS.items() for column in reasons} - used
    if unused:
        raise ValueError(f"reasons without a cell: {sorted(unused)}")
    lines += ["## Reasons\n", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(render(results()), encoding="utf-8")


if __name__ == "__main__":
    main()
