"""The messages of a run: objects that are a function of seed, conversation and number, and what a device reads off one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Literal

from comity.cpim.address import Address
from comity.cpim.compose import compose
from comity.cpim.entity import cpim_view
from comity.cpim.operations import MimeObject
from comity.secure import Identity, LocalCa, TrustStore, new_identity, sign, verify

Level = Literal["plain", "binary", "large", "small", "signed", "receipt", "native", "report", "impostor"]
DOMAIN = "a.test"
REPORTER = "comity"
TEXT, BINARY, IMDN = "text/plain; charset=utf-8", "application/octet-stream", "message/imdn+xml"
LARGE = 20_000
NATIVE = b"native "
"""Begins a text that its sender's program sends as it is, as a stock phone does; its identity is in the text."""
_ABOUT = re.compile(rb"<message-id>([^<]*)</message-id>")


def address_of(user: str) -> Address:
    """The address of a user of the run."""
    return Address.im(user, DOMAIN)


@dataclass(slots=True)
class Thing:
    """One message of a conversation, and how far it got."""

    k: int
    id: str
    object: MimeObject
    level: Level
    seen_from: str = ""
    """Whom the request says it is from, if not from its sender (an impostor's)."""
    is_final: bool = False
    """Acknowledged, or refused for good."""
    is_under_way: bool = False
    retry_at: float = 0.0
    was_delivered: bool = False
    was_refused: bool = False
    was_reported: bool = False
    """Its sender was told that it failed."""


class Maker:
    """Makes the objects of a run.

    Args:
        seed: of the run.
        canary: stands in every body, so that a log with a body in it can be told.
        users: everybody who may sign.
    """

    def __init__(self, seed: int, canary: str, users: list[str]) -> None:
        self.seed = seed
        self.canary = canary.encode()
        when = datetime.now(UTC)
        authority = LocalCa.create("Authority of the proof", when=when)
        self._identities: Mapping[str, Identity] = {
            user: new_identity(address_of(user), ca=authority, when=when) for user in users
        }
        self._trust = TrustStore(anchors=(authority.certificate,))

    def make(self, conv: str, k: int, sender: str, recipient: str, level: Level, *, seen_from: str = "") -> Thing:
        """Message ``k`` of a conversation.

        Args:
            conv: its name.
            k: its number.
            sender: the user who sends it.
            recipient: the user it is for.
            level: what kind of body it has and what it asks.
            seen_from: whom it says it is from, if not from its sender (an impostor's).
        """
        dice = Random(f"{self.seed}/{conv}/{k}")
        id = f"{conv}.{k}.{dice.getrandbits(48):012x}"
        if level == "native":
            return Thing(k, id, MimeObject.of(TEXT, NATIVE + id.encode() + b" " + self._content(dice, level)[1]), level)
        content_type, content = self._content(dice, level)
        asks = [("imdn.Disposition-Notification", "positive-delivery, negative-delivery")] if level == "receipt" else []
        obj = self._object(seen_from or sender, recipient, id, content, content_type, asks)
        if level == "signed":
            form: Literal["multipart", "signed-data"] = "multipart"
            obj = sign(obj, self._identities[sender], form=form, when=datetime.now(UTC))
        # Every other forgery is on the wire too, not only in the object.
        return Thing(k, id, obj, level, seen_from if k % 2 else "")

    def receipt(self, conv: str, k: int, sender: str, recipient: str, about: str) -> Thing:
        """A delivery notification (RFC 5438 section 7.2.1.1) that ``sender`` got ``about``."""
        document = (
            '<?xml version="1.0" encoding="UTF-8"?>\r\n<imdn xmlns="urn:ietf:params:xml:ns:imdn">'
            f"<message-id>{about}</message-id><datetime>{datetime.now(UTC).isoformat()}</datetime>"
            "<delivery-notification><status><delivered/></status></delivery-notification></imdn>\r\n"
        )
        id = f"{conv}.{k}.{Random(f'{self.seed}/{conv}/{k}').getrandbits(48):012x}"
        return Thing(k, id, self._object(sender, recipient, id, document.encode(), IMDN, []), "report")

    def _object(
        self, sender: str, recipient: str, id: str, content: bytes, content_type: str, headers: list[tuple[str, str]]
    ) -> MimeObject:
        octets = compose(
            from_=address_of(sender).uri,
            to=address_of(recipient).uri,
            content=content,
            date_time=datetime.now(UTC),
            message_id=id,
            content_type=content_type,
            headers=headers,
        )
        return MimeObject.of("message/cpim", octets)

    def _content(self, dice: Random, level: Level) -> tuple[str, bytes]:
        every = bytearray(range(256))
        dice.shuffle(every)
        match level:
            case "binary":
                return BINARY, self.canary + bytes(every) + dice.randbytes(dice.randrange(512))
            case "large":
                return BINARY, self.canary + bytes(every) + dice.randbytes(LARGE)
            case "small":  # a datagram holds no more (RFC 3428 section 8); all values come over a few messages
                return BINARY, self.canary + bytes(every[:48])
        most = 20 if level == "native" else 200
        words = "".join(dice.choices("Grüße 👋🏽 <&>\"' ]]> abc", k=dice.randrange(8, most)))
        return TEXT, self.canary + words.encode("utf-8")

    # --- reading -----------------------------------------------------------------------------------------------

    def verdict(self, obj: MimeObject, sender: Address, recipient: Address) -> str:
        """What the signature of an object proves to its recipient."""
        found = verify(obj, self._trust, now=datetime.now(UTC), expected_from=sender, expected_to=recipient)
        return found.verdict.value


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device reads off an object it got."""

    id: str
    sha256: str
    """Of the object; of its content, if the server made the object of a native text."""
    inner: str
    """User in the object's From."""
    asks_receipt: bool
    about: str
    """Message-ID that a notification is about, "" if the object is none."""
    is_failure: bool
    is_signed: bool


def look(obj: MimeObject) -> Seen:
    """Read an object as its recipient's program would."""
    view = cpim_view(obj)
    if view is None:
        return Seen("", obj.fingerprint, "", False, "", False, False)
    is_native = view.content.startswith(NATIVE)
    native_id = view.content.removeprefix(NATIVE).partition(b" ")[0].decode() if is_native else ""
    about = _ABOUT.search(view.content) if b"imdn+xml" in view.raw else None
    return Seen(
        native_id or view.message_id or "",
        hashlib.sha256(view.content).hexdigest() if is_native else obj.fingerprint,
        user_of(view.from_.uri) if view.from_ is not None else "",
        b"positive-delivery" in view.raw,
        about[1].decode() if about else "",
        b"<failed/>" in view.content,
        obj.media_type == "multipart/signed",
    )


def user_of(uri: str) -> str:
    """The user an address of the run names; the whole of any other."""
    local, _, domain = uri.partition(":")[2].rpartition("@")
    return local if domain == DOMAIN else uri


def place_of(id: str) -> tuple[str, int]:
    """Conversation and number in a Message-ID of ``Maker``; ("…", -1) for any other."""
    conv, _, rest = id.partition(".")
    number = rest.partition(".")[0]
    return conv, int(number) if number.isdigit() else -1
