"""Remember who signed, after a verdict: the writing half of ``contacts.py`` (reliability.md T33; RFC 3923 section 6.2).

Place on the path: behind its end: ``comity listen`` and ``comity verify`` come here with each verdict, and say what ``standing``
says beside it. The rule its readers must keep: what is noted here vouches for nobody, and only signatures that hold, by
certificates that prove From and that nothing but a missing voucher speaks against, are noted.
"""

from __future__ import annotations

from datetime import datetime

from comity.secure import chain, contacts, kept, openpgp
from comity.secure.chain import Distrust
from comity.secure.contacts import Contact, Contacts
from comity.secure.identity import contact_key, proves
from comity.secure.kept import Kept
from comity.secure.keystore import KeyStore
from comity.secure.verdict import Verdict, VerdictKind

MAX_CONTACTS = 1000
"""People remembered; whom somebody vouches for is always. Each costs two small files, and all are read when one changes."""

#: After these a signature holds. Trust is another question.
_NOTED = frozenset({VerdictKind.VALID, VerdictKind.VALID_WEAK, VerdictKind.UNTRUSTED, VerdictKind.CHANGED})
_VOUCHED = frozenset({VerdictKind.VALID, VerdictKind.VALID_WEAK})


def standing(store: KeyStore, verdict: Verdict) -> str:
    """How the signer of an object stands to what was seen before ("first contact"); "" if no signature holds."""
    found = _signer_of(verdict)
    if found is None:
        return ""
    if _is_own(store, found):
        return "your own key"
    address = contact_key(verdict.from_)
    memory = Contacts({address: store.contacts_of(address)})
    return memory.text(verdict.from_, found.key, is_vouched=verdict.verdict in _VOUCHED)


def note(store: KeyStore, verdict: Verdict, when: datetime, protocol: str = "") -> bool:
    """Remember who signed, with which key, from the verdict on one object (SEC-20); True if there was news.

    Args:
        store: whose memory.
        verdict: on the object.
        when: aware UTC, now.
        protocol: by which it came, "" from a file.
    """
    found = _signer_of(verdict)
    if found is None:
        return False
    address = contact_key(verdict.from_)
    second = kept.read(verdict.encryption_certificate) if verdict.encryption_certificate else []
    new = Contact(
        address,
        found.key,
        found.fingerprint,
        when,
        protocol,
        found.technology,
        is_vouched=verdict.verdict in _VOUCHED,
        capabilities=verdict.capabilities,
        reader=second[0].fingerprint if second else "",
    )
    before = store.contacts_of(address)
    if contacts.noted(before, new) == before:
        return False  # nearly always: no lock, no write
    if _is_own(store, found) or not (new.is_vouched or _is_usable(store, found, when)):
        return False
    with store.home.locked():
        before = store.contacts_of(address)
        after = contacts.noted(before, new)
        if after == before or not (before or new.is_vouched or _has_room(store)):
            return False
        if any(contact.key == found.key for contact in after):
            for each in (found, *second):
                store.keep(each)
        store.write_contacts(address, after)
    return True


def _signer_of(verdict: Verdict) -> Kept | None:
    """Whose signature holds, if it is that of the im: or pres: user whom From names; a sip: name alone is not (SEC-19)."""
    if verdict.verdict not in _NOTED or not verdict.certificate:
        return None
    found, address = kept.read(verdict.certificate)[0], contact_key(verdict.from_)
    is_theirs = proves(found.names, verdict.from_) and any(
        proves(found.names, f"{scheme}{address.removeprefix('im')}") for scheme in ("im", "pres")
    )
    return found if address and is_theirs else None


def _is_own(store: KeyStore, found: Kept) -> bool:
    own = {chain.fingerprint(store.own.certificate(address)) for address in store.identities()}
    if found.technology == "openpgp":
        own |= {kept.of_openpgp(store.pgp.certificate(address)).fingerprint for address in store.pgp.addresses()}
    return found.fingerprint in own


def _is_usable(store: KeyStore, found: Kept, when: datetime) -> bool:
    """True if nothing but a missing voucher speaks against it: an expired, revoked or distrusted key is nobody's first."""
    if not found.is_current(when):
        return False
    if found.x509 is not None:
        return chain.check_chain(found.x509, store.trust_store(), when).distrust in (None, Distrust.UNKNOWN_CA)
    is_revoked = openpgp.read_certificates(found.octets)[0].is_revoked
    return not is_revoked and not store.home.exists("distrusted", found.file_name)


def _has_room(store: KeyStore) -> bool:
    """False once so many are remembered that it must be strangers who make up names."""
    return len(store.home.files("contacts", ".json")) < MAX_CONTACTS
