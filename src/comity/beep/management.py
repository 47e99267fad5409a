"""The elements of channel 0, read and written (RFC 3080 sections 2.3.1 and 7.1).

Place on the path: steps 2 and 3. ``read_management`` gives one of the values below or raises RemoteProtocolError whose ``hint``
is the reply code for a MSG ("500" poorly formed, "501" not valid, "restricted-xml": not to be answered at all).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from comity.beep.events import ProfileOffer
from comity.beep.frames import MAX_NUMBER
from comity.beep.payload import read_beep_xml, write_beep_xml
from comity.errors import LocalProtocolError, RemoteProtocolError
from comity.xml import XML_LANG, CData, Element, is_xml_text

MAX_CONTENT: Final = 4096
"""Octets of an initialization message (RFC 3080 section 2.3.1.2: "no longer than 4K octets")."""
MAX_URI: Final = 1024
MAX_SERVER_NAME: Final = 1024
_NUMBER = re.compile("0|[1-9][0-9]{0,9}")
_CODE = re.compile("[1-5][0-9][0-9]")


@dataclass(frozen=True, slots=True)
class Greeting:
    profiles: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    localize: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    number: int
    profiles: tuple[ProfileOffer, ...]
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """The positive reply to ``start``."""

    chosen: ProfileOffer


@dataclass(frozen=True, slots=True)
class Close:
    number: int
    code: int
    text: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Ok:
    """The positive reply to ``close``."""


@dataclass(frozen=True, slots=True)
class BeepError:
    """The negative reply to everything, also of the TLS and SASL profiles."""

    code: int
    text: str = ""
    language: str = ""


Management = Greeting | Start | Profile | Close | Ok | BeepError


def read_management(payload: bytes) -> Management:
    """Read a message of channel 0. Raises RemoteProtocolError."""
    element = read_beep_xml(payload)
    match element.name:
        case "start":
            return _start(element)
        case "profile":
            return Profile(_profile(element))
        case "greeting":
            return _greeting(element)
        case "ok":
            _check(element, is_empty=True)
            return Ok()
        case "close":
            _check(element, "number", "code", XML_LANG)
            number = _number(element.get("number", "0"), "close", 0)
            return Close(number, _code(element), element.text, element.language)
        case "error":
            return read_error(element)
    raise _invalid("an element that channel management does not have")


def read_error(element: Element) -> BeepError:
    """Read ``error``, on whatever channel. Raises RemoteProtocolError."""
    _check(element, "code", XML_LANG)
    return BeepError(_code(element), element.text, element.language)


def _greeting(element: Element) -> Greeting:
    _check(element, "features", "localize", has_children=True)
    profiles = tuple(_profile(child).uri for child in element.elements())
    return Greeting(profiles, tuple(element.get("features").split()), tuple(element.get("localize").split()))


def _start(element: Element) -> Start:
    _check(element, "number", "serverName", has_children=True)
    offers = tuple(_profile(child) for child in element.elements())
    if not offers:
        raise _invalid("no profile element in <start>")
    server_name = element.get("serverName")
    if len(server_name) > MAX_SERVER_NAME:
        raise _invalid("the serverName attribute is too long")
    return Start(_number(element.get("number"), "start", 1), offers, server_name)


def _profile(element: Element) -> ProfileOffer:
    if element.name != "profile":
        raise _invalid("an element that is no profile where a profile belongs")
    _check(element, "uri", "encoding")
    uri, text = element.get("uri"), element.text
    if not uri or len(uri) > MAX_URI:
        raise _invalid("the uri attribute of <profile> is missing or too long")
    match element.get("encoding", "none"):
        case "none":
            content = text.encode() if text.strip(" \t\r\n") else b""
        case "base64":
            try:
                content = base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                raise _invalid("the content of <profile> is not base64") from None
        case _:
            raise _invalid("the encoding attribute of <profile> is neither none nor base64")
    if len(content) > MAX_CONTENT:
        raise _invalid("the content of <profile> is longer than 4096 octets")
    return ProfileOffer(uri, content)


def _check(element: Element, *attributes: str, has_children: bool = False, is_empty: bool = False) -> None:
    """Only what the DTD has: these attributes, and child elements or text or nothing."""
    for name in element.attributes:
        if name not in attributes:
            raise _invalid(f"an attribute that <{element.local}> does not have")
    for child in element.children:
        if isinstance(child, Element):
            if not has_children:
                raise _invalid(f"an element inside <{element.local}>")
        elif (has_children or is_empty) and child.strip(" \t\r\n"):
            raise _invalid(f"text inside <{element.local}>")


def _number(text: str, name: str, least: int) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= MAX_NUMBER:
        raise _invalid(f"number attribute poorly formed in <{name}> element")
    return int(text)


def _code(element: Element) -> int:
    code = element.get("code")
    if not _CODE.fullmatch(code):
        raise _invalid(f"code attribute poorly formed in <{element.local}> element")
    return int(code)


def _invalid(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(reason, hint="501")


# --- going out --------------------------------------------------------------------------------------------------------


def write_management(value: Management) -> bytes:
    """The payload of a message of channel 0. Raises LocalProtocolError for what cannot be written."""
    return write_beep_xml(_to_element(value))


def _to_element(value: Management) -> Element:
    match value:
        case Greeting(profiles, features, localize):
            element = Element("greeting", {}, [Element("profile", {"uri": uri}) for uri in profiles])
            for name, tokens in (("features", features), ("localize", localize)):
                if tokens:
                    element.attributes[name] = " ".join(tokens)
            return element
        case Start(number, profiles, server_name):
            element = Element("start", {"number": str(number)}, [_profile_element(offer) for offer in profiles])
            if server_name:
                element.attributes["serverName"] = server_name
            return element
        case Profile(chosen):
            return _profile_element(chosen)
        case Close(number, code, text, language):
            return _diagnostic(Element("close", {"number": str(number), "code": str(code)}), text, language)
        case Ok():
            return Element("ok")
        case BeepError():
            return error_element(value)


def error_element(error: BeepError) -> Element:
    """The ``error`` element, for whatever channel."""
    return _diagnostic(Element("error", {"code": str(error.code)}), error.text, error.language)


def _diagnostic(element: Element, text: str, language: str) -> Element:
    if text:
        if language:
            element.attributes[XML_LANG] = language
        element.append(text)
    return element


def _profile_element(offer: ProfileOffer) -> Element:
    if len(offer.content) > MAX_CONTENT:
        raise LocalProtocolError("an initialization message has at most 4096 octets")
    element = Element("profile", {"uri": offer.uri})
    if not offer.content:
        return element
    try:
        text = offer.content.decode()
    except UnicodeDecodeError:
        text = "\r"
    # White space alone reads as nothing, and XML turns CR LF into LF: such octets go as base64.
    if "\r" in text or not is_xml_text(text) or not text.strip(" \t\n"):
        element.attributes["encoding"] = "base64"
        return element.append(base64.b64encode(offer.content).decode("ascii"))
    return element.append(CData(text))
