"""Diagnostics in the peer's language (RFC 3080 section 2.3.1.1, I18N-2): which language, and our texts in it.

Place on the path: step 9. The texts are for people who read logs; programs read the code beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

#: Language to English text to its translation.
TRANSLATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "de": {
        "service not available": "Dienst nicht verfügbar",
        "number attribute in <start> element must be odd-valued": "Das Attribut number in <start> muss ungerade sein",
        "number attribute in <start> element must be even-valued": "Das Attribut number in <start> muss gerade sein",
        "the channel exists already": "Den Kanal gibt es schon",
        "there is no such channel": "Diesen Kanal gibt es nicht",
        "too many channels": "Zu viele Kanäle",
        "still working": "Es wird noch gearbeitet",
        "the message is too long": "Die Nachricht ist zu lang",
        "the message is not understood": "Die Nachricht wird nicht verstanden",
        "all requested profiles are unsupported": "Keines der verlangten Profile wird unterstützt",
        "the element is not expected here": "Dieses Element wird hier nicht erwartet",
        "version attribute poorly formed in <ready> element": "Das Attribut version in <ready> ist nicht wohlgeformt",
        "TLS is not to be had": "TLS ist nicht zu haben",
        "TLS is on already": "TLS ist schon eingeschaltet",
        "no TLS behind a sign-in": "Nach einer Anmeldung beginnt kein TLS mehr",
        "somebody is signed in already": "Es ist schon jemand angemeldet",
        "a sign-in is under way": "Eine Anmeldung läuft bereits",
        "the mechanism requires encryption": "Das Verfahren verlangt Verschlüsselung",
        "the mechanism is too weak": "Das Verfahren ist zu schwach",
        "the sign-in failed": "Die Anmeldung ist gescheitert",
        "the sign-in was aborted": "Die Anmeldung wurde abgebrochen",
        "not authorized to act for another": "Nicht befugt, für andere zu handeln",
        "too many failed attempts": "Zu viele gescheiterte Versuche",
        "the account cannot be looked up now": "Das Konto kann gerade nicht nachgeschlagen werden",
    }
}


def localize(text: str, wanted: Sequence[str], more: Mapping[str, Mapping[str, str]] | None = None) -> tuple[str, str]:
    """``text`` (English) in the best language of ``wanted`` that we have it in, and the tag of that language."""
    for tag in wanted:
        language = tag.lower().partition("-")[0]
        if language in ("en", "i", "*"):  # "i-default" is English that everybody can read (RFC 2277 section 4.5)
            break
        for table in (more or {}, TRANSLATIONS):
            found = table.get(language, {}).get(text)
            if found is not None:
                return found, language
    return text, "en"
