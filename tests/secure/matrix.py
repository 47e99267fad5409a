"""The table of docs/reference/security-peers.md: what S/MIME peers and Comity read of each other, tried with the programs.

Run ``PYTHONPATH=src python -m tests.secure.matrix`` to write the page anew; ``test_peer_matrix.py`` runs everything and
compares. A cell without "yes" needs a reason here, and a reason needs such a cell.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import Identity, VerdictKind, cms_open, cms_seal, sign, verify
from tests.peers import need_program
from tests.secure.smime_peers import NOW, Gpgsm, Openssl, PeerRefused, entity, signer, trust

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "security-peers.md"
COLUMNS = ("openssl reads ours", "we read openssl's", "gpgsm reads ours", "we read gpgsm's")
ENTITY = entity().entity


@dataclass(frozen=True, slots=True)
class Row:
    """One algorithm or form; a cell that is None cannot be tried, for the reason given."""

    name: str
    ours: Callable[[], bytes] | None = None
    openssl: Callable[[Openssl], bytes] | None = None
    gpgsm: Callable[[Gpgsm], bytes] | None = None
    reader: str = ""
    """Whose key opens it; "" for signatures."""


# --- what is tried -----------------------------------------------------------------------------------------------


def _signed(kind: str, *, form: str = "signed-data", **how: object) -> Callable[[], bytes]:
    return lambda: sign(ENTITY, signer(kind), when=NOW, form=form, **how).octets  # type: ignore[arg-type]  # keyword table


def _openssl_signed(kind: str, *options: str) -> Callable[[Openssl], bytes]:
    return lambda peer: peer.sign(ENTITY, signer(kind), *options)


def _gpgsm_signed(kind: str, *options: str) -> Callable[[Gpgsm], bytes]:
    return lambda peer: peer.sign(ENTITY, signer(kind), *options)


_PSS = ("-keyopt", "rsa_padding_mode:pss")
_OAEP = ("-keyopt", "rsa_padding_mode:oaep")

SIGNATURES = [
    Row("RSA PKCS #1 1.5, SHA-256", _signed("rsa2048"), _openssl_signed("rsa2048"), _gpgsm_signed("rsa2048")),
    Row(
        "RSA PKCS #1 1.5, SHA-512",
        None,
        _openssl_signed("rsa2048", "-md", "sha512"),
        _gpgsm_signed("rsa2048", "--digest-algo", "SHA512"),
    ),
    Row("RSA-PSS, SHA-256", _signed("rsa2048", is_pss=True), _openssl_signed("rsa2048", *_PSS)),
    Row("ECDSA P-256, SHA-256", _signed("p256"), _openssl_signed("p256"), _gpgsm_signed("p256")),
    Row("ECDSA P-384, SHA-384", _signed("p384"), _openssl_signed("p384", "-md", "sha384"), _gpgsm_signed("p384")),
    Row("ECDSA P-384, SHA-256", None, _openssl_signed("p384", "-md", "sha256")),
    Row("ECDSA P-521, SHA-512", _signed("p521"), _openssl_signed("p521", "-md", "sha512"), _gpgsm_signed("p521")),
    Row("Ed25519, SHA-512", _signed("ed25519"), _openssl_signed("ed25519", "-md", "sha512"), _gpgsm_signed("ed25519")),
    Row(
        "RSA, SHA-1",
        None,
        _openssl_signed("rsa2048", "-md", "sha1"),
        _gpgsm_signed("rsa2048", "--digest-algo", "SHA1"),
    ),
    Row("RSA, MD5", None, _openssl_signed("rsa2048", "-md", "md5"), _gpgsm_signed("rsa2048", "--digest-algo", "MD5")),
    Row("signer by key identifier", None, _openssl_signed("p256", "-keyid")),
    Row("no signed attributes", None, _openssl_signed("p256", "-noattr")),
    Row("indefinite lengths", None, _openssl_signed("p256", "-stream"), _gpgsm_signed("rsa2048")),
]


def _sealed(*kinds: str, cipher: str = "aes-128-cbc", has_old_rsa: bool = False) -> Callable[[], bytes]:
    def make() -> bytes:
        certificates = [signer(kind).decryption_keys[0].certificate for kind in kinds]
        return cms_seal.seal(ENTITY, certificates, cipher=cipher, has_old_rsa=has_old_rsa)

    return make


def _openssl_sealed(
    *kinds: str, cipher: str = "aes-128-cbc", key: tuple[str, ...] = (), more: tuple[str, ...] = ()
) -> Callable[[Openssl], bytes]:
    return lambda peer: peer.encrypt(ENTITY, *map(signer, kinds), options=(f"-{cipher}", *more), key=key)


def _gpgsm_sealed(*kinds: str, cipher: str = "AES128") -> Callable[[Gpgsm], bytes]:
    return lambda peer: peer.encrypt(ENTITY, *map(signer, kinds), options=("--cipher-algo", cipher))


def _to(name: str, kind: str, key: tuple[str, ...] = (), **how: object) -> Row:
    return Row(name, _sealed(kind, **how), _openssl_sealed(kind, key=key), _gpgsm_sealed(kind), kind)  # type: ignore[arg-type]  # keyword table


RECIPIENTS = [
    _to("RSA PKCS #1 1.5", "rsa2048", has_old_rsa=True),
    Row("RSA OAEP, SHA-1", None, _openssl_sealed("rsa2048", key=_OAEP), None, "rsa2048"),
    Row(
        "RSA OAEP, SHA-256",
        _sealed("rsa2048"),
        _openssl_sealed("rsa2048", key=(*_OAEP, "-keyopt", "rsa_oaep_md:sha256")),
        None,
        "rsa2048",
    ),
    Row("ECDH P-256, X9.63 with SHA-1", None, _openssl_sealed("p256"), None, "p256"),
    _to("ECDH P-256, X9.63 with SHA-256", "p256", ("-keyopt", "ecdh_kdf_md:sha256")),
    _to("ECDH P-384, X9.63 with SHA-384", "p384", ("-keyopt", "ecdh_kdf_md:sha384")),
    _to("ECDH P-521", "p521", ("-keyopt", "ecdh_kdf_md:sha512")),
    Row(
        "ECDH P-256 with cofactor", None, _openssl_sealed("p256", key=("-keyopt", "ecdh_cofactor_mode:1")), None, "p256"
    ),
    _to("X25519, HKDF with SHA-256", "ed25519"),
]


def _cipher(name: str, ours: str, openssl: str, gpgsm: str = "") -> Row:
    return Row(
        name,
        _sealed("rsa2048", cipher=ours, has_old_rsa=True) if ours else None,
        _openssl_sealed("rsa2048", cipher=openssl),
        _gpgsm_sealed("rsa2048", cipher=gpgsm) if gpgsm else None,
        "rsa2048",
    )


CIPHERS = [
    _cipher("AES-128-GCM", "aes-128-gcm", "aes-128-gcm", "AES128.GCM"),
    _cipher("AES-256-GCM", "aes-256-gcm", "aes-256-gcm", "AES256.GCM"),
    _cipher("AES-192-GCM", "", "aes-192-gcm"),
    _cipher("ChaCha20-Poly1305", "", "chacha20-poly1305"),
    _cipher("AES-128-CBC", "aes-128-cbc", "aes-128-cbc", "AES128"),
    _cipher("AES-256-CBC", "aes-256-cbc", "aes-256-cbc", "AES256"),
    _cipher("AES-192-CBC", "", "aes-192-cbc", "AES192"),
    _cipher("triple DES", "des-ede3-cbc", "des3", "3DES"),
    _cipher("Camellia-128", "", "camellia128", "CAMELLIA128"),
    _cipher("RC2-40", "", "rc2-40", "RC2"),
]
FORMS = [
    Row(
        "RSA and P-256 in one object, read by RSA",
        _sealed("rsa2048", "p256", has_old_rsa=True),
        _openssl_sealed("rsa2048", "p256"),
        _gpgsm_sealed("rsa2048", "p256"),
        "rsa2048",
    ),
    Row(
        "RSA and P-256 in one object, read by P-256",
        _sealed("rsa2048", "p256"),
        _openssl_sealed("rsa2048", "p256"),
        None,
        "p256",
    ),
    Row(
        "RSA, P-256 and X25519 in one object, read by P-256",
        _sealed("rsa2048", "p256", "ed25519"),
        _openssl_sealed("rsa2048", "p256", "ed25519"),
        None,
        "p256",
    ),
    Row("recipient by key identifier (RSA)", None, _openssl_sealed("rsa2048", more=("-keyid",)), None, "rsa2048"),
    Row("recipient by key identifier (P-256)", None, _openssl_sealed("p256", more=("-keyid",)), None, "p256"),
    Row(
        "in pieces of indefinite length",
        None,
        _openssl_sealed("rsa2048", cipher="aes-256-gcm", more=("-stream",)),
        _gpgsm_sealed("rsa2048"),
        "rsa2048",
    ),
]
SECTIONS = {
    "Signatures": SIGNATURES,
    "Recipients (content in AES-128-CBC)": RECIPIENTS,
    "Content ciphers (key by RSA PKCS #1 1.5)": CIPHERS,
    "Forms of encrypted objects": FORMS,
}

# --- why not -----------------------------------------------------------------------------------------------------

OURS, THEIRS, GPGSM_OURS, GPGSM_THEIRS = COLUMNS
READ_ONLY = "Comity reads it and writes the one beside it, which is as strong and as widely read (RFC 8551 section 2)."
OLD = "Comity never writes it, and reads it only as weak (SEC-11)."
TRIPLE_DES = "Comity never writes it (SEC-11), and reads it as not authenticated: only around a signature."
NO_OPTION = "gpgsm 2.2 has no way to ask for it."
NO_EC_KEY = "gpgsm 2.2 imports no private key on an elliptic curve, so it has none to sign with."
NO_EC = "gpgsm 2.2 neither encrypts to nor opens with elliptic curves; GnuPG 2.3 and later do."
P521_OURS = "Comity signs with P-256, P-384, Ed25519 and RSA; P-521 is read."
NO_ED = (
    "OpenSSL 3.0 has no Ed25519 in CMS, nor has gpgsm 2.2. That our signature is right is shown with `openssl pkeyutl` "
    "(`tests/secure/test_peers.py`)."
)
NO_X25519 = (
    "No peer has X25519 in CMS: OpenSSL's issue 22388 is open, gpgsm has none, Bouncy Castle has it in a beta. That our "
    "key is right is shown with `openssl pkeyutl` and `openssl kdf` (`tests/secure/test_peers.py`)."
)
NO_OAEP = "gpgsm 2.2 has no OAEP; `encrypt(…, has_old_rsa=True)` writes PKCS #1 1.5."
NO_AEAD = "gpgsm 2.2 has no AuthEnvelopedData; to who announces AES-CBC only, Comity sends it around a signature."
NO_CHACHA = (
    "OpenSSL 3.0 has no ChaCha20-Poly1305 in CMS (RFC 8103), nor has gpgsm 2.2; Comity reads it and writes AES-GCM."
)
FOREIGN = "Not in RFC 8551. Comity does not read it: the object is kept and named *not checked*."
GONE = "Not in RFC 8551; OpenSSL 3.0 has it behind its legacy provider only, gpgsm 2.2 not at all."
FIXED_FORM = "Comity writes one form: DER, issuer and serial number, signed attributes."
FIXED_FORM_GPGSM = "gpgsm writes one form: indefinite lengths, issuer and serial number, signed attributes."
MIXED_X25519 = "OpenSSL refuses the whole object when one recipient has an X25519 key."
#: Row → reasons by outcome's column; "*" for every column that is not "yes".
REASONS: dict[str, dict[str, str]] = {
    "RSA PKCS #1 1.5, SHA-512": {"*": READ_ONLY},
    "RSA-PSS, SHA-256": {"*": NO_OPTION},
    "ECDSA P-256, SHA-256": {"*": NO_EC_KEY},
    "ECDSA P-384, SHA-384": {"*": NO_EC_KEY},
    "ECDSA P-384, SHA-256": {"*": READ_ONLY, GPGSM_THEIRS: NO_EC_KEY},
    "ECDSA P-521, SHA-512": {"*": P521_OURS, GPGSM_THEIRS: NO_EC_KEY},
    "Ed25519, SHA-512": {"*": NO_ED},
    "RSA, SHA-1": {"*": OLD},
    "RSA, MD5": {"*": OLD},
    "signer by key identifier": {"*": FIXED_FORM, GPGSM_THEIRS: FIXED_FORM_GPGSM},
    "no signed attributes": {"*": FIXED_FORM, GPGSM_THEIRS: FIXED_FORM_GPGSM},
    "indefinite lengths": {"*": FIXED_FORM},
    "RSA OAEP, SHA-1": {"*": READ_ONLY, GPGSM_THEIRS: NO_OAEP},
    "RSA OAEP, SHA-256": {"*": NO_OAEP},
    "ECDH P-256, X9.63 with SHA-1": {"*": READ_ONLY, GPGSM_THEIRS: NO_EC},
    "ECDH P-256, X9.63 with SHA-256": {"*": NO_EC},
    "ECDH P-384, X9.63 with SHA-384": {"*": NO_EC},
    "ECDH P-521": {"*": NO_EC},
    "ECDH P-256 with cofactor": {"*": READ_ONLY, GPGSM_THEIRS: NO_EC},
    "X25519, HKDF with SHA-256": {"*": NO_X25519},
    "AES-128-GCM": {"*": NO_AEAD},
    "AES-256-GCM": {"*": NO_AEAD},
    "AES-192-GCM": {"*": READ_ONLY, GPGSM_THEIRS: NO_AEAD},
    "ChaCha20-Poly1305": {"*": NO_CHACHA},
    "AES-192-CBC": {"*": READ_ONLY},
    "triple DES": {"*": TRIPLE_DES},
    "Camellia-128": {"*": FOREIGN},
    "RC2-40": {"*": GONE},
    "RSA and P-256 in one object, read by RSA": {"*": NO_EC},
    "RSA and P-256 in one object, read by P-256": {"*": NO_EC},
    "RSA, P-256 and X25519 in one object, read by P-256": {"*": NO_EC, THEIRS: MIXED_X25519},
    "recipient by key identifier (RSA)": {"*": FIXED_FORM, GPGSM_THEIRS: FIXED_FORM_GPGSM},
    "recipient by key identifier (P-256)": {"*": FIXED_FORM, GPGSM_THEIRS: FIXED_FORM_GPGSM},
    "in pieces of indefinite length": {"*": FIXED_FORM},
}


# --- trying ------------------------------------------------------------------------------------------------------


def _verdict(octets: bytes) -> str:
    verdict = verify(MimeObject.of("application/pkcs7-mime", octets), trust(), now=NOW).verdict
    return {VerdictKind.VALID: "yes", VerdictKind.VALID_WEAK: "weak"}.get(verdict, "no")


def _opened(octets: bytes, who: Identity) -> str:
    return "yes" if cms_open.open_enveloped(octets, [who]).entity == ENTITY else "no"


def _try(make: Callable[[], bytes] | None, read: Callable[[bytes], str]) -> str:
    """ "yes" or "weak" if it is read, "not written" if the writer has none or refuses, "no" if the reader does."""
    if make is None:
        return "not written"
    try:
        made = make()
    except (PeerRefused, SecurityError):
        return "not written"
    try:
        return read(made)
    except (PeerRefused, SecurityError):
        return "no"


def cells(row: Row, openssl: Openssl, gpgsm: Gpgsm) -> list[str]:
    """The outcomes of one row, in the order of ``COLUMNS``."""

    def ours_with(peer: Callable[[bytes], bytes]) -> str:
        return _try(row.ours, lambda octets: "yes" if peer(octets) == ENTITY else "no")

    of_openssl = None if row.openssl is None else partial(row.openssl, openssl)
    of_gpgsm = None if row.gpgsm is None else partial(row.gpgsm, gpgsm)
    if not row.reader:
        return [
            ours_with(openssl.verify),
            _try(of_openssl, _verdict),
            ours_with(gpgsm.verify),
            _try(of_gpgsm, _verdict),
        ]
    who = signer(row.reader)
    return [
        ours_with(lambda octets: openssl.decrypt(octets, who)),
        _try(of_openssl, lambda octets: _opened(octets, who)),
        ours_with(gpgsm.decrypt),
        _try(of_gpgsm, lambda octets: _opened(octets, who)),
    ]


def results(folder: Path) -> dict[tuple[str, str], str]:
    """Try everything: (row, column) → outcome."""
    openssl, gpgsm = Openssl(folder), Gpgsm(need_program("gpgsm"), folder)
    try:
        gpgsm.import_key(signer("rsa2048"))
        return {
            (row.name, column): cell
            for rows in SECTIONS.values()
            for row in rows
            for column, cell in zip(COLUMNS, cells(row, openssl, gpgsm), strict=True)
        }
    finally:
        gpgsm.close()


# --- the page ----------------------------------------------------------------------------------------------------

HEAD = """# S/MIME peers

<!-- written by python -m tests.secure.matrix; run it again when a cell changes -->

What Comity and two other programs read of each other, tried with the programs of Debian 12: `openssl cms` (OpenSSL 3.0) and
`gpgsm` (GnuPG 2.2). `tests/secure/test_peer_matrix.py` tries every cell again and compares it with this page.

*yes*: read, and the octets are the same. *weak*: read, but worth no more than no signature. *no*: the reader refuses.
*not written*: the writer has no such thing, or refuses.
"""


def render(outcomes: dict[tuple[str, str], str]) -> str:
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
        for row in rows:
            shown = [_cell(row.name, column, outcomes[row.name, column], notes, used) for column in COLUMNS]
            lines.append(f"| {row.name} | {' | '.join(shown)} |")
        lines.append("")
    unused = {(name, column) for name, reasons in REASONS.items() for column in reasons} - used
    if unused:
        raise ValueError(f"reasons without a cell: {sorted(unused)}")
    lines += ["## Reasons\n", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def _cell(name: str, column: str, outcome: str, notes: list[str], used: set[tuple[str, str]]) -> str:
    if outcome == "yes":
        return outcome
    key = column if column in REASONS.get(name, {}) else "*"
    reason = REASONS[name][key]
    used.add((name, key))
    if reason not in notes:
        notes.append(reason)
    return f"{outcome} ({notes.index(reason) + 1})"


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:
        PAGE.write_text(render(results(Path(name))), encoding="utf-8")


if __name__ == "__main__":
    main()
