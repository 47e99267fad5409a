"""Make a message/cpim, sign it, let a gateway damage a copy, and see what a recipient can prove."""

from datetime import UTC, datetime

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify

ALICE, BOB = Address.parse("im:alice@example.org"), Address.parse("im:bob@example.net")


def main() -> None:
    """Print two verdicts."""
    now = datetime.now(UTC)
    authority = LocalCa.create("An authority both know", when=now)
    alice = new_identity(ALICE, ca=authority, when=now)

    message = text_object(ALICE, BOB, "The octets are the message. 🎉")
    signed = sign(message, alice, when=now)
    damaged = MimeObject(signed.header_block, signed.octets.replace(b"octets", b"0ctets"))

    trust = TrustStore(anchors=(authority.certificate,))
    for name, received in (("as sent", signed), ("damaged", damaged)):
        verdict = verify(received, trust, now=now, expected_from=ALICE, expected_to=BOB)
        print(f"{name}: {verdict.verdict}, {verdict.reason}")


if __name__ == "__main__":
    main()
