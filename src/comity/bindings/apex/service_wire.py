"""What is said to and by APEX services, between content and the values of ``elements.py``.

Place on the path: steps 4 and 8, for the report, access and presence services (RFC 3340 section 9.2, RFC 3341 and RFC 3343
section 6). A service's element travels in ``data-content`` or, as application/beep+xml, in a part of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, cast

from comity.bindings.apex import grammar
from comity.bindings.apex.elements import (
    AccessEntry,
    Allow,
    Capability,
    Content,
    Deny,
    Destination,
    Get,
    Inline,
    Notify,
    Presence,
    Publish,
    Query,
    Reply,
    ServiceElement,
    Set,
    StatusResponse,
    Subscribe,
    Terminate,
    Tuple,
    Watch,
)
from comity.bindings.apex.grammar import NOT_IMPLEMENTED, WireError, check, shape
from comity.bindings.apex.multipart import CONTROL
from comity.cpim.header import read_timestamp
from comity.cpim.operations import MimeObject
from comity.xml import XML_LANG, Element, serialize

_SHAPES: Final = {
    "reply": shape("code", "transID xml:lang", has_text=True),
    "statusResponse": shape("transID"),
    "query": shape("owner actor actions transID"),
    "get": shape("owner actor transID"),
    "set": shape("transID"),
    "allow": shape("transID"),
    "deny": shape("transID"),
    "subscribe": shape("publisher duration transID"),
    "watch": shape("publisher duration transID"),
    "publish": shape("publisher transID timeStamp"),
    "notify": shape("subscriber transID", "duration action"),
    "terminate": shape("", "code xml:lang transID", has_text=True),
}
_DESTINATION: Final = shape("identity")
_ACCESS: Final = shape("owner actor", "actions lastUpdate")
_PRESENCE: Final = shape("publisher", "lastUpdate publisherInfo")
"""``lastUpdate`` is required by the DTD, but a first publication has none to give (RFC 3343 section 4.4)."""
_TUPLE: Final = shape("destination availableUntil", "tupleInfo")
_CAPABILITY: Final = shape("baseline", has_text=True)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_service(content: Content) -> ServiceElement:
    """Read what is said to or by a service.

    Raises:
        WireError: 500 not well formed, 501 not valid or no XML at all, 504 an element that no service knows.
    """
    if not isinstance(content, Inline) and MimeObject(content.header_block, b"").media_type != CONTROL:
        raise WireError("what is said to a service is application/beep+xml")
    root = grammar.document(content.octets)
    allowed = _SHAPES.get(root.name)
    if allowed is None:
        raise WireError("no service knows this element", NOT_IMPLEMENTED)
    check(root, allowed)
    return _READERS[root.name](root)


def _id(element: Element) -> int:
    return grammar.trans_id(element.get("transID"))


def _reply(element: Element) -> Reply:
    if "transID" not in element.attributes:
        raise WireError("a reply names its transaction")
    return _plain_reply(element)


def _plain_reply(element: Element) -> Reply:
    check(element, _SHAPES["reply"])
    grammar.leaf(element)
    trans_id = _id(element) if "transID" in element.attributes else 0
    return Reply(grammar.code(element.get("code")), trans_id, element.text, element.language)


def _status_response(element: Element) -> StatusResponse:
    found: list[Destination] = []
    for child in element.elements():
        if child.name != "destination":
            raise WireError("statusResponse holds destinations")
        check(child, _DESTINATION)
        reply = grammar.only_child(child, "reply")
        found.append(Destination(grammar.endpoint(child.get("identity")), _plain_reply(reply)))
    if not found:
        raise WireError("statusResponse lacks a destination")
    return StatusResponse(_id(element), tuple(found))


def _actor(text: str) -> str:
    """Who may hold wildcards; which of them mean something is the access service's to say."""
    local, at, domain = text.rpartition("@")
    if not (local and at and domain):
        raise WireError("an actor is local@domain")
    return text


def _actions(text: str) -> tuple[str, ...]:
    actions = tuple(grammar.nmtoken(token) for token in text.split())
    if not actions:
        raise WireError("actions names at least one")
    return actions


def _query(element: Element) -> Query:
    grammar.leaf(element)
    owner, actor = grammar.endpoint(element.get("owner")), grammar.endpoint(element.get("actor"))
    return Query(owner, actor, _actions(element.get("actions")), _id(element))


def _get(element: Element) -> Get:
    grammar.leaf(element)
    return Get(grammar.endpoint(element.get("owner")), _actor(element.get("actor")), _id(element))


def _set(element: Element) -> Set:
    access = grammar.only_child(element, "access")
    check(access, _ACCESS)
    grammar.leaf(access)
    actions = _actions(access.get("actions")) if "actions" in access.attributes else None
    last_update = access.get("lastUpdate")
    if last_update:
        _moment(last_update)
    owner = grammar.endpoint(access.get("owner"))
    return Set(_id(element), AccessEntry(owner, _actor(access.get("actor")), actions, last_update))


def _allow(element: Element) -> Allow:
    grammar.leaf(element)
    return Allow(_id(element))


def _deny(element: Element) -> Deny:
    grammar.leaf(element)
    return Deny(_id(element))


def _subscribe(element: Element) -> Subscribe:
    grammar.leaf(element)
    return Subscribe(grammar.endpoint(element.get("publisher")), grammar.number(element.get("duration")), _id(element))


def _watch(element: Element) -> Watch:
    grammar.leaf(element)
    return Watch(grammar.endpoint(element.get("publisher")), grammar.number(element.get("duration")), _id(element))


def _publish(element: Element) -> Publish:
    presence = _presence(grammar.only_child(element, "presence"))
    time_stamp = element.get("timeStamp")
    _moment(time_stamp)
    return Publish(grammar.endpoint(element.get("publisher")), _id(element), time_stamp, presence)


def _presence(element: Element) -> Presence:
    check(element, _PRESENCE)
    last_update, info = element.get("lastUpdate"), element.get("publisherInfo")
    if last_update:
        _moment(last_update)
    tuples = tuple(_tuple(child) for child in element.elements())
    if not tuples:
        raise WireError("presence lacks a tuple")  # APEX-22
    return Presence(
        grammar.endpoint(element.get("publisher")), last_update, info and grammar.absolute_uri(info), tuples
    )


def _tuple(element: Element) -> Tuple:
    if element.name != "tuple":
        raise WireError("presence holds tuples")
    check(element, _TUPLE)
    info = element.get("tupleInfo")
    return Tuple(
        grammar.absolute_uri(element.get("destination")),
        _moment(element.get("availableUntil")),
        info and grammar.absolute_uri(info),
        tuple(_capability(child) for child in element.elements()),
    )


def _capability(element: Element) -> Capability:
    if element.name != "capability":
        raise WireError("a tuple holds capabilities")
    check(element, _CAPABILITY)
    grammar.leaf(element)
    return Capability(grammar.absolute_uri(element.get("baseline")), element.text)


def _notify(element: Element) -> Notify:
    grammar.leaf(element)
    action = element.get("action", "subscribe")
    if action not in ("subscribe", "terminate"):
        raise WireError("action is subscribe or terminate")
    duration = grammar.number(element.get("duration")) if "duration" in element.attributes else None
    subscriber = grammar.endpoint(element.get("subscriber"))
    return Notify(subscriber, _id(element), cast("Literal['subscribe', 'terminate']", action), duration)


def _terminate(element: Element) -> Terminate:
    grammar.leaf(element)
    trans_id = grammar.number(element.get("transID", "0"))
    return Terminate(trans_id, grammar.code(element.get("code", "250")), element.text, element.language)


def _moment(text: str) -> datetime:
    """TIMESTAMP (RFC 3339), aware."""
    when = read_timestamp(text)
    if when is None:
        raise WireError("a timestamp is not one")
    return when


_READERS: Final[dict[str, Callable[[Element], ServiceElement]]] = {
    "reply": _reply,
    "statusResponse": _status_response,
    "query": _query,
    "get": _get,
    "set": _set,
    "allow": _allow,
    "deny": _deny,
    "subscribe": _subscribe,
    "watch": _watch,
    "publish": _publish,
    "notify": _notify,
    "terminate": _terminate,
}


# --- writing ---------------------------------------------------------------------------------------------------------


def write_service(element: ServiceElement) -> bytes:
    """XML octets, to be put into ``Inline``. Raises LocalProtocolError for what XML cannot hold."""
    return serialize(_written(element))


def _written(element: ServiceElement) -> Element:
    match element:
        case Reply():
            return _write_reply(element)
        case StatusResponse(trans_id, destinations):
            inside = [
                Element("destination", {"identity": str(one.identity)}, [_write_reply(one.reply)])
                for one in destinations
            ]
            return Element("statusResponse", {"transID": str(trans_id)}, [*inside])
        case Query(owner, actor, actions, trans_id):
            who = {"owner": str(owner), "actor": str(actor), "actions": " ".join(actions)}
            return Element("query", {**who, "transID": str(trans_id)})
        case Get(owner, pattern, trans_id):
            return Element("get", {"owner": str(owner), "actor": pattern, "transID": str(trans_id)})
        case Set(trans_id, access):
            return Element("set", {"transID": str(trans_id)}, [_write_access(access)])
        case Allow(trans_id):
            return Element("allow", {"transID": str(trans_id)})
        case Deny(trans_id):
            return Element("deny", {"transID": str(trans_id)})
        case Subscribe(publisher, duration, trans_id) | Watch(publisher, duration, trans_id):
            name = "subscribe" if isinstance(element, Subscribe) else "watch"
            return Element(name, {"publisher": str(publisher), "transID": str(trans_id), "duration": str(duration)})
        case Publish(publisher, trans_id, time_stamp, presence):
            attributes = {"publisher": str(publisher), "transID": str(trans_id), "timeStamp": time_stamp}
            return Element("publish", attributes, [_write_presence(presence)])
        case Notify(subscriber, trans_id, action, lasting):
            attributes = {"subscriber": str(subscriber), "transID": str(trans_id)}
            if lasting is not None:
                attributes["duration"] = str(lasting)
            return Element("notify", {**attributes, "action": action})
        case Terminate(trans_id, code, text, language):
            attributes = {"transID": str(trans_id)} | ({"code": str(code)} if code != 250 else {})
            return _with_text("terminate", attributes, text, language)


def _with_text(name: str, attributes: dict[str, str], text: str, language: str) -> Element:
    if language:
        attributes[XML_LANG] = language
    return Element(name, attributes, [text] if text else [])


def _write_reply(reply: Reply) -> Element:
    attributes = {"code": str(reply.code)} | ({"transID": str(reply.trans_id)} if reply.trans_id else {})
    return _with_text("reply", attributes, reply.text, reply.language)


def _write_access(access: AccessEntry) -> Element:
    attributes = {"owner": str(access.owner), "actor": access.actor}
    if access.actions is not None:
        attributes["actions"] = " ".join(access.actions)
    if access.last_update:
        attributes["lastUpdate"] = access.last_update
    return Element("access", attributes)


def _write_presence(presence: Presence) -> Element:
    attributes = {"publisher": str(presence.publisher)}
    if presence.last_update:
        attributes["lastUpdate"] = presence.last_update
    if presence.publisher_info:
        attributes["publisherInfo"] = presence.publisher_info
    return Element("presence", attributes, [_write_tuple(one) for one in presence.tuples])


def _write_tuple(one: Tuple) -> Element:
    attributes = {"destination": one.destination, "availableUntil": one.available_until.isoformat()}
    if one.tuple_info:
        attributes["tupleInfo"] = one.tuple_info
    return Element(
        "tuple", attributes, [Element("capability", {"baseline": c.baseline}, [c.text]) for c in one.capabilities]
    )
