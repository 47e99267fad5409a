"""Nodes of personal eventing: what is configured, what they hold, how both are written (XEP-0060, XEP-0163). Pure.

Place on the path: under ``personal.py``. A node is one document of its account: its configuration and its items, oldest first.
Payloads stay serialised from the moment they came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.queries import DATA_FORMS
from comity.xml import Element, XmlLimits, parse_document

PUBSUB: Final = "http://jabber.org/protocol/pubsub"
OWNER: Final = "http://jabber.org/protocol/pubsub#owner"
EVENT: Final = "http://jabber.org/protocol/pubsub#event"
ERRORS: Final = "http://jabber.org/protocol/pubsub#errors"
NODE_CONFIG: Final = "http://jabber.org/protocol/pubsub#node_config"

#: What an account's address can do (XEP-0163 section 6.1 and what of XEP-0060 is done here).
FEATURES: Final = (
    PUBSUB,
    *(
        f"{PUBSUB}#{name}"
        for name in (
            *("access-open", "access-presence", "access-whitelist", "auto-create", "auto-subscribe", "config-node"),
            *("config-node-max", "create-and-configure", "create-nodes", "delete-items", "delete-nodes"),
            *("filtered-notifications", "item-ids", "last-published", "meta-data", "multi-items"),
            *("persistent-items", "presence-notifications", "presence-subscribe", "publish", "publish-options"),
            *("purge-nodes", "retract-items", "retrieve-default", "retrieve-items"),
        )
    ),
)
#: What "max" means; the octets of a document bound it too.
MAX_ITEMS: Final = 1000
#: Octets of a node's name, which with its prefix is the name of a document, and of an item's id.
MAX_NAME: Final = 1000

#: For what came as a stanza within its limits and was written anew here, which can make it longer.
_KEPT: Final = XmlLimits(octets=16 * 1024 * 1024, depth=128, elements=1_000_000, attributes=1024, namespaces=1024)
_FLAGS: Final = {"1": "1", "true": "1", "0": "0", "false": "0"}
#: Field of the form to its values; the first is the default. An empty table: any text.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "access_model": ("presence", "open", "whitelist"),
    "persist_items": ("1", "0"),
    "max_items": ("1",),
    "send_last_published_item": ("on_sub_and_presence", "on_sub", "never"),
    "deliver_payloads": ("1", "0"),
    "notify_retract": ("1", "0"),
    "notify_delete": ("1", "0"),
    "publish_model": ("publishers",),
    "title": (),
}
_DEFAULTS: Final[Mapping[str, str]] = {name: values[0] if values else "" for name, values in _FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Item:
    """Something published."""

    id: str
    payload: str
    """One element, serialised so that it can stand anywhere."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it is kept."""

    name: str
    options: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULTS))
    items: tuple[Item, ...] = ()
    """Oldest first."""

    @property
    def access(self) -> str:
        """Who but the owner may see it: "open" anybody, "presence" who may see the owner, "whitelist" nobody."""
        return self.options["access_model"]

    def is_on(self, name: str) -> bool:
        """The value of a flag."""
        return self.options[name] == "1"

    def with_item(self, item: Item) -> Node:
        """With ``item`` as the newest; what there is no room for is gone. Nothing is kept of a node that keeps no items."""
        if not self.is_on("persist_items"):
            return self
        kept = [one for one in self.items if one.id != item.id]
        return replace(self, items=(*kept, item)[-int(self.options["max_items"]) :])

    def without(self, id: str) -> Node:
        """Without the item ``id``."""
        return replace(self, items=tuple(one for one in self.items if one.id != id))

    def configured(self, options: Mapping[str, str]) -> Node:
        """With ``options`` changed, and no more items than they allow."""
        merged = {**self.options, **options}
        items = self.items[-int(merged["max_items"]) :] if merged["persist_items"] == "1" else ()
        return replace(self, options=merged, items=items)

    def unlike(self, options: Mapping[str, str]) -> str:
        """The first of ``options`` that is not what the node has (XEP-0060 section 7.1.5); "" if all are."""
        return next((name for name, value in options.items() if self.options[name] != value), "")

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps([dict(self.options), [[one.id, one.payload] for one in self.items]]).encode()


def decode_node(name: str, octets: bytes) -> Node:
    """What ``Node.encode`` made. Raises ValueError for anything else."""
    try:
        options, items = json.loads(octets)
        known = {key: _value(key, value) for key, value in options.items() if key in _FIELDS}
        kept = tuple(Item(str(id), str(payload)) for id, payload in items)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"a node cannot be read: {error}") from error
    return Node(name, {**_DEFAULTS, **known}, kept)


# --- forms ------------------------------------------------------------------------------------------------------------


def read_options(parent: Element | None) -> dict[str, str]:
    """The options in the form under ``parent``; fields that are not known here are passed over.

    Raises ValueError: there is a value that nodes here cannot have.
    """
    form = parent.find(f"{{{DATA_FORMS}}}x") if parent is not None else None
    if form is None or form.get("type") == "cancel":
        return {}
    options: dict[str, str] = {}
    for one in form.find_all(f"{{{DATA_FORMS}}}field"):
        name = one.get("var").removeprefix("pubsub#")
        value = one.find(f"{{{DATA_FORMS}}}value")
        if name in _FIELDS and value is not None:
            options[name] = _value(name, value.text.strip())
    return options


def _value(name: str, text: str) -> str:
    if name == "max_items":
        if text == "max":
            return str(MAX_ITEMS)
        if not text.isascii() or not text.isdigit() or not int(text[:9]) >= 1:
            raise ValueError(name)
        return str(min(int(text[:9]), MAX_ITEMS))
    allowed = _FIELDS[name]
    if not allowed:
        return text[:MAX_NAME]
    text = _FLAGS.get(text, text) if "1" in allowed else text
    if text not in allowed:
        raise ValueError(name)
    return text


def options_form(node: Node, kind: str = "form") -> Element:
    """The form that says how a node is configured."""
    return form(NODE_CONFIG, kind, {f"pubsub#{name}": value for name, value in node.options.items()})


def form(form_type: str, kind: str, values: Mapping[str, str]) -> Element:
    """A data form (XEP-0004) with one value a field."""
    rows = [_field("FORM_TYPE", form_type, "hidden"), *(_field(name, value) for name, value in values.items())]
    return Element(f"{{{DATA_FORMS}}}x", {"type": kind}, list(rows))


def _field(name: str, value: str, kind: str = "") -> Element:
    attributes = {"var": name, "type": kind} if kind else {"var": name}
    return Element(f"{{{DATA_FORMS}}}field", attributes, [Element(f"{{{DATA_FORMS}}}value", {}, [value])])


def kept_element(octets: bytes) -> Element:
    """An element that was kept here serialised."""
    return parse_document(octets, _KEPT)


# --- what is written ----------------------------------------------------------------------------------------------------


def items_element(namespace: str, node: str, items: Iterable[Item], *, with_payload: bool = True) -> Element:
    """``items`` in an answer (PUBSUB) or an event (EVENT)."""
    rows: list[Element | str] = [
        Element(f"{{{namespace}}}item", {"id": one.id}, [kept_element(one.payload.encode())] if with_payload else [])
        for one in items
    ]
    return Element(f"{{{namespace}}}items", {"node": node}, rows)


def pubsub(*children: Element, namespace: str = PUBSUB) -> Element:
    """The element around what is asked and answered."""
    return Element(f"{{{namespace}}}pubsub", {}, list(children))


def event(sender: str, id: str, child: Element) -> Element:
    """A notification without ``to`` (XEP-0163 section 4.3)."""
    body = Element(f"{{{EVENT}}}event", {}, [child])
    return Element(wire.MESSAGE, {"from": sender, "type": "headline", "id": id}, [body])


def refusal(stanza: Element, condition: str, detail: str = "", text: str = "", **attributes: str) -> Element | None:
    """A stanza error with what XEP-0060 adds to it."""
    application = Element(f"{{{ERRORS}}}{detail}", attributes) if detail else None
    reply = wire.error_reply(stanza, condition, text, application=application)
    error = reply.find(wire.ERROR) if reply is not None else None
    if error is not None and condition == "item-not-found":
        error.attributes["code"] = (
            "404"  # COMPAT profanity 0.13: publishes its device list (OMEMO) only after this code
        )
    return reply
