"""The import table of shared/style.md, kept true: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "comity"

#: (module prefix, modules of comity it may import by prefix, third-party packages); the first match counts.
TABLE: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("errors", (), ()),
    ("__init__", ("cpim", "errors"), ()),
    ("__main__", ("cli",), ()),
    ("xml", ("xml", "errors"), ()),
    ("failpoints", ("errors",), ()),
    ("sasl", ("errors",), ("precis_i18n",)),
    # BEEP is usable without the rest (RFC 3080).
    ("beep", ("beep", "sasl", "xml", "errors"), ()),
    ("cpim.address", ("errors",), ("idna", "precis_i18n")),
    # What reads and writes presence documents, and the rules about them.
    *(
        (f"cpim.{part}", ("cpim", "xml", "errors"), ())
        for part in (
            *("documents", "presence", "pidf_diff", "presence_writer", "presence_state", "rpid", "composition"),
            *("common_policy", "presence_rules", "watchers"),
            # Disposition notifications and typing states are documents too; what is made of native messages asks for the former.
            *("imdn", "composing", "native"),
        )
    ),
    ("cpim", ("cpim", "errors"), ()),
    ("secure", ("secure", "cpim", "errors"), ("cryptography", "pysequoia")),
    ("bindings.__init__", ("bindings",), ()),
    ("bindings.base", ("service.interfaces", "cpim", "errors"), ()),
    ("bindings.*.config", ("errors",), ()),
    # The mapping in its parts: ``forms`` is what a device is handed, ``history`` the header of GW-8,
    # ``protection`` what every hop must keep (T11), ``reports`` why a message failed (GW-12).
    *(
        (f"bindings.*.{part}", ("bindings.*", "cpim", "errors", "xml"), ())
        for part in (
            "mapping",
            "forms",
            "history",
            "egress",
            "protection",
            "reports",
            "subscriptions",
            "packages",
            "rlmi",
            "conditions",
            "fallback",
            "xhtml",
        )
    ),
    # The same for presence, whose operations are of the presence service.
    *(
        (f"bindings.*.{part}", ("bindings.*", "cpim", "service.presence.interfaces", "errors", "xml"), ())
        for part in ("presence", "notices")
    ),
    # List subscriptions: whom a service of the subscriber's own stands for is in its XCAP documents (RFC 4826).
    (
        "bindings.*.lists",
        (
            *("bindings.*", "bindings.base", "cpim", "service.interfaces", "service.presence.interfaces"),
            *("xcap.services", "errors"),
        ),
        (),
    ),
    # The glue in its parts.
    *(
        (
            f"bindings.*.{part}",
            (
                *("bindings.*", "bindings.base", "cpim", "service.interfaces", "service.presence.interfaces"),
                *("beep", "sasl", "errors", "xml", "failpoints"),
            ),
            (),
        )
        for part in (
            *("binding", "requests", "authentication", "submission", "registrar", "delivery", "connections"),
            *("trunk", "exchange", "keeping", "signing", "ways", "abroad", "abroad_pairs", "abroad_telling"),
            *("availability", "capabilities", "carbons", "counts", "ground", "streams"),
            # Presence: SIP's notifier and publications, XMPP's contact list, probes and directed presence.
            *("publishing", "subscribing", "notifier", "notifications", "partial", "listing", "lists", "watchers"),
            "typing",
            *("roster", "asking", "watching", "directed", "blocking", "personal", "nodes", "vcard"),
            # Other XMPP servers: the switch, the two kinds of ways, what passes between domains.
            *(
                "neighbours",
                "ways",
                "servers",
                "calls",
                "components",
                "component_way",
                "passing",
                "passing_iq",
                "passing_out",
            ),
            *("presence_abroad", "presence_outward"),
            # Whom a certificate names is what TLS proved (``TlsInfo``).
            *("dialback", "server_stream", "server_stream_out"),
        )
    ),
    # APEX's glue in its parts: attachments, the way up and down, the mesh of relays, the services behind well-known endpoints.
    *(
        (
            f"bindings.apex.{part}",
            (
                *(
                    "bindings.apex",
                    "bindings.base",
                    "beep",
                    "cpim",
                    "service.interfaces",
                    "service.presence.interfaces",
                ),
                *("errors", "xml", "sasl", "failpoints"),
            ),
            (),
        )
        for part in (
            *("interfaces", "attachments", "options", "report", "mesh", "relaying", "service_data"),
            *("targets", "calling", "neighbour", "own_ids"),
            *(
                "access_service",
                "presence_service",
                "presence_edge",
                "presence_entries",
                "presence_watchers",
                "presence_operations",
            ),
        )
    ),
    # The wire: parts are MIME entities, as an object's are; timestamps are RFC 3339's everywhere. ``reasons`` is part of the mapping.
    *(
        (f"bindings.apex.{part}", ("bindings.apex", "cpim", "xml", "errors"), ())
        for part in ("multipart", "service_wire", "reasons")
    ),
    # An endpoint and an im: address are one thing in two spellings.
    ("bindings.apex.endpoint", ("bindings.apex", "cpim.address", "errors"), ()),
    ("bindings.*", ("bindings.*", "beep", "sasl", "errors", "xml"), ("idna", "precis_i18n")),
    # Passwords are prepared (RFC 8265) before keys are derived from them.
    ("service.credentials", ("service", "cpim", "errors"), ("msgspec", "precis_i18n")),
    ("service", ("service", "cpim", "errors", "failpoints"), ("msgspec",)),
    ("store", ("store", "cpim", "service.interfaces", "errors", "failpoints"), ("msgspec",)),
    ("net.https", ("net", "bindings.base", "service.interfaces", "errors"), ("aiohttp",)),
    ("net", ("net", "bindings.base", "service.interfaces", "errors", "failpoints"), ("dns", "cryptography")),
    # service.interfaces: a client is a Binding of a network of its own, whose contract names Delivery and Service.
    (
        "client",
        ("client", "cpim", "secure", "bindings", "beep", "sasl", "net", "service.interfaces", "errors", "xml"),
        ("aiohttp",),
    ),
    # XCAP: pure but for ``resources``, which asks the service, and ``handler``, which speaks HTTP and SIP's digest.
    (
        "xcap.handler",
        ("xcap", "bindings.sip.digest", "bindings.sip.headers", "cpim", "service", "errors"),
        ("aiohttp",),
    ),
    *(
        (f"xcap.{part}", ("xcap", "cpim", "service.interfaces", "service.presence.interfaces", "xml", "errors"), ())
        for part in ("resources", "exchange", "services", "standing", "budget")
    ),
    ("xcap", ("xcap", "cpim", "xml", "errors"), ()),
    # The one place that chooses a store engine by configuration, for the server and for commands without one.
    ("admin.engine", ("admin", "store", "service", "config", "errors"), ()),
    # What to publish in DNS goes by listeners; the look-up asks as the server does.
    ("admin.published", ("admin", "config", "bindings.base", "errors"), ()),
    ("admin.lookup", ("admin", "config", "net", "bindings.base", "errors"), ()),
    ("admin", ("admin", "service", "cpim", "config", "errors"), ("msgspec", "aiohttp", "cryptography")),
    (
        "config",
        ("config", "bindings.*.config", "bindings", "cpim", "errors"),
        ("msgspec", "idna", "cryptography"),  # cryptography: does the certificate fit its key and the domains?
    ),
    ("testing", ("*",), ("*",)),
    ("server", ("*",), ("prometheus_client", "aiohttp", "cryptography", "msgspec")),
    ("demo", ("server", "admin", "config", "client", "secure", "cpim", "errors", "demo", "testing"), ("click",)),
    (
        "cli",
        ("cli", "server", "admin", "config", "client", "secure", "cpim", "errors", "demo", "__init__"),
        ("click", "msgspec"),
    ),
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def matches(name: str, prefix: str, folder: str) -> bool:
    """``bindings.*`` stands for the importer's own binding folder on the right, for any on the left."""
    if prefix == "*":
        return True
    if "*" in prefix:
        parts = prefix.split(".")
        own = name.split(".")
        if len(own) < 2 or own[0] != "bindings":
            return False
        if folder and own[1] != folder:
            return False
        return len(parts) == 2 or own[2:3] == parts[2:3]
    return name == prefix or name.startswith(prefix + ".")


def rule_for(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for prefix, ours, theirs in TABLE:
        if matches(name, prefix, "") and not (prefix == "bindings.*" and name.count(".") < 2):
            return ours, theirs
    raise AssertionError(f"comity.{name} is not in the import table: add a row and say why")


def imports(path: Path) -> set[str]:
    """Dotted names a module imports, those under ``if TYPE_CHECKING`` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "comity" or (SOURCE / node.module.replace(".", "/").removeprefix("comity/")).is_dir():
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                found.add(node.module)
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"relative import in {path}"
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=module_name)
def test_module_imports_only_what_the_table_allows(path: Path) -> None:
    name = module_name(path)
    ours, theirs = rule_for(name)
    parts = name.split(".")
    folder = parts[1] if parts[0] == "bindings" and len(parts) > 2 else ""
    for imported in imports(path):
        top = imported.split(".")[0]
        if top == "comity":
            inner = imported.removeprefix("comity").lstrip(".") or "__init__"
            if inner == name or inner.removesuffix(".__init__") == name:
                continue
            assert any(matches(inner, p, folder) for p in ours), f"comity.{name} may not import {imported}"
        elif top not in sys.stdlib_module_names:
            assert "*" in theirs or top in theirs, f"comity.{name} may not import {imported}"
