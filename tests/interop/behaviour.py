"""What each stock client was seen to do; ``test_client_matrix.py`` holds every client to its line.

``python -m tests.interop.behaviour`` writes the lines as ``docs/reference/clients.md``; a test finds the page out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.interop.catalogue import CLIENTS, UDP_OCTETS
from tests.interop.clients import UNLIMITED, State, StockClient
from tests.interop.linphone import LinphoneConsole

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "clients.md"

SIP_NOTE = "[This message was signed by its sender. Your program cannot check that, so nothing here is proved.]"
XMPP_NOTE = "[This message is signed, but this program did not check the signature.]"
UNREAD_NOTE = "[This message is encrypted, and this program cannot read it.]"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one client does beside texts."""

    version: str
    """And what it was driven by."""
    proof: str
    """How it proves the password."""
    certificate: str
    """Whether it checks the server's certificate."""
    objects: str
    """What it does with a message/cpim object, signed or not; it shows the readable part in any case."""
    typing: str = "none"
    receipts: str = "none"
    encrypted: str = "not shown; the sender is told"
    """What becomes of an encrypted object."""
    by_hand: frozenset[str] = frozenset()
    """Transports over which it does not come back by itself once the server is there again."""


_REFUSED = "refused with 415, then offered as text"
_IGNORED = "`e2e` beside the text is ignored"

BEHAVIOUR = {
    "baresip": Behaviour("1.0.0 (`baresip-core`)", "MD5", "**no**", _REFUSED, typing="refused with 415"),
    "linphone": Behaviour(
        "5.1.65 (`linphone-daemon`)",
        "SHA-256",
        "by name",
        "never offered: it says `Accept: text/plain`, and a quoted boundary makes it crash",
        typing="its daemon shows none",
        receipts="IMDN, unasked and compressed; told to XMPP clients that ask",
    ),
    "pjsua": Behaviour(
        "2.15.1 (`pjsua2-python`)",
        "SHA-256",
        "if told to",
        "never offered: it says 200 and shows nothing",
        typing="is-composing, with XMPP clients too",
    ),
    "twinkle": Behaviour(
        "1.10.2 (`twinkle-console`)",
        "MD5",
        "no TLS",
        "never offered: it says 200 to what is encrypted and shows that it cannot",
        typing="its console shows none",
    ),
    "mcabber": Behaviour(
        "1.1.2", "PLAIN", "yes", _IGNORED, typing="shows no text of it", by_hand=frozenset({"starttls", "tls"})
    ),
    "profanity": Behaviour(
        "0.13.1",
        "SCRAM-SHA-512",
        "yes",
        _IGNORED,
        typing="shows no text of it",
        receipts="XEP-0184, with XMPP clients",
    ),
    "libpurple": Behaviour(
        "2.14.12 (Pidgin, Finch, BitlBee)",
        "SCRAM-SHA-512, 65,536 iterations at most",
        "asks about one it does not know",
        _IGNORED,
        typing="XEP-0085, with SIP clients too; tells only those whose presence it sees",
    ),
    "slixmpp": Behaviour(
        "1.17 (library)",
        "SCRAM",
        "yes",
        _IGNORED,
        typing="XEP-0085, with SIP clients too",
        receipts="XEP-0184, with SIP clients too",
        encrypted="a statement that it is encrypted: it does not say what it knows (XEP-0115)",
    ),
}


PRESENT = {name: LinphoneConsole if name == "linphone" else kind for name, kind in CLIENTS.items()}
"""What each is for presence: Linphone its console, since its daemon knows none."""
STATES: tuple[State, ...] = ("online", "away", "busy", "offline")


def _said(kind: type[StockClient]) -> str:
    can = kind.presence
    words = [state for state in STATES if state in can.tells]
    if not words:
        return "nothing of its presence"
    return (
        ", ".join(words)
        + (", with a note" if can.tells_notes else "")
        + ("" if can.knows_escapes else " (**`<` and `&` unescaped**)")
    )


def _shown(kind: type[StockClient]) -> str:
    can = kind.presence
    words = [state for state in STATES if state in can.shows or state == "offline"]
    if not can.shows:
        return "nothing of presence"
    away = "" if "away" in can.shows else f"; away as {can.away_as}"
    notes = ", with the note" if can.shows_notes else ", no notes"
    return ", ".join(words) + away + notes + ("" if can.knows_escapes else " (**`&lt;` as it stands**)")


def _can(kind: type[StockClient], what: str) -> str:
    if not kind.presence.shows:
        return "–"
    return "yes" if getattr(kind.presence, what) else "no: `comity contacts`"


def _octets(most: int, kind: type[StockClient]) -> str:
    udp = f"; {UDP_OCTETS} over UDP" if "udp" in kind.transports and most > UDP_OCTETS else ""
    return ("no limit met" if most == UNLIMITED else f"{most:,}") + udp


BEEP = """
## BEEP and APEX

No program that speaks APEX (RFC 3340) was found anywhere, so `tests/interop/apex_peer.py` plays application and relay: written
from the RFCs alone, importing nothing of Comity, driven by `tests/interop/test_apex_peer*.py` at each run.

For BEEP alone (RFC 3080) these were looked for in November 2026:

| where | found |
|---|---|
| Debian 12 (`apt-cache search`) | nothing: `beep` 1.4.9 and `node-beeper` ring a bell; no libvortex, no beepcore |
| PyPI | no `py-vortex`, no `beepcore`; `beep` 2026.2.7, `beepy` 1.0.9, `pybeep` 0.0.4, `vortex` 0.1.3 and `pyvortex` 0.3.0 are other things |
| npm | no BEEP; `beepjs` 0.0.1 and `node-beep` 0.0.3 are other things |
| CPAN (`Net::BEEP::Lite`) | could not be reached |
| sources only, in no registry asked | libvortex 1.1 (C); beepcore-java 0.9.20 (github.com/JALoP/beepcore-java) |

beepcore-java (tried): built by hand with OpenJDK 17, its base64 class replaced and one `wait` put under its lock. Its echo
daemon answered 15 messages of 3 to 84,101 octets of our library and messages of up to 100,002 octets of the independent peer,
released in order; its `bing` had 5 messages each of 10, 3,000, 4,000 and 50,000 octets answered by our listener.
"""


def page() -> str:
    """The reference page."""
    rows = {
        "protocol": [kind.protocol.upper() for kind in CLIENTS.values()],
        "version (tried)": [BEHAVIOUR[name].version for name in CLIENTS],
        "signs in over": [", ".join(kind.transports).upper() for kind in CLIENTS.values()],
        "proves the password by (tried)": [BEHAVIOUR[name].proof for name in CLIENTS],
        "checks the certificate (tried)": [BEHAVIOUR[name].certificate for name in CLIENTS],
        "longest text sent, octets": [_octets(kind.limits.send_octets, kind) for kind in CLIENTS.values()],
        "longest text shown, octets": [_octets(kind.limits.show_octets, kind) for kind in CLIENTS.values()],
        "sends several lines": ["yes" if kind.limits.sends_lines else "**no**" for kind in CLIENTS.values()],
        "shows what waited, in order": ["yes" for _ in CLIENTS],
        "several devices of one account": ["each shows it" for _ in CLIENTS],
        "what the user's other devices send": [
            "shown too" if kind.shows_copies else "not shown" if kind.protocol == "sip" else "–"
            for kind in CLIENTS.values()
        ],
        "after the server was away": [_return(name, kind) for name, kind in CLIENTS.items()],
        "message/cpim objects": [BEHAVIOUR[name].objects for name in CLIENTS],
        "a signed text": ["readable part, and what is not proved" for _ in CLIENTS],
        "an encrypted text": [BEHAVIOUR[name].encrypted for name in CLIENTS],
        "its user says": [_said(kind) for kind in PRESENT.values()],
        "of others it shows": [_shown(kind) for kind in PRESENT.values()],
        "its user answers requests to see": [_can(kind, "answers") for kind in PRESENT.values()],
        "its user blocks": [_can(kind, "blocks") for kind in PRESENT.values()],
        "typing notices": [BEHAVIOUR[name].typing for name in CLIENTS],
        "receipts": [BEHAVIOUR[name].receipts for name in CLIENTS],
    }
    lines = [
        "# Stock clients, side by side",
        "",
        "Written by `python -m tests.interop.behaviour`; do not edit. At each run of `make test` the tests in `tests/interop/`",
        "hold every client to its column with the real program and the running server; lines with (tried) were looked at by",
        "hand once. Settings and reasons stand in [Connect your client](../howto/connect-your-client.md).",
        "",
        "| | " + " | ".join(CLIENTS) + " |",
        "|---" * (len(CLIENTS) + 1) + "|",
        *(f"| {title} | " + " | ".join(cells) + " |" for title, cells in rows.items()),
    ]
    return "\n".join(lines) + "\n" + BEEP


def _return(name: str, kind: type[StockClient]) -> str:
    by_hand = BEHAVIOUR[name].by_hand
    if not by_hand:
        return "comes back by itself"
    if by_hand == set(kind.transports):
        return "**by hand**"
    return f"comes back by itself; **by hand** over {', '.join(sorted(by_hand)).upper()}"


if __name__ == "__main__":
    PAGE.write_text(page())
