"""What a message requires of every hop, as a child of its stanza (T11, SEC-30). Pure.

Place on the path: inside steps 4 and 8, for ``mapping.py`` and ``egress.py``. XMPP ignores a child it does not know, so the
child alone binds nobody: a client sends it only through a server that says by disco that it keeps it
(``extensions.PROTECTION``), and toward a client of ours the server is the last hop and looks at its own link.
"""

from __future__ import annotations

from collections.abc import Collection

from comity.bindings.xmpp.extensions import PROTECTION
from comity.cpim.operations import Requirement
from comity.cpim.protection import read_requirements
from comity.xml import Element

ELEMENT = f"{{{PROTECTION}}}protection"


def read_protection(stanza: Element) -> frozenset[Requirement]:
    """What the stanza requires. Raises ValueError for what is not known here: nobody could keep it."""
    found: frozenset[Requirement] = frozenset()
    for child in stanza.elements():
        if child.namespace != PROTECTION:
            continue
        wanted = [each.local for each in child.elements()]
        if child.name != ELEMENT or not wanted or any(each.namespace != PROTECTION for each in child.elements()):
            raise ValueError("not a protection element that can be read")
        found |= read_requirements(wanted)
    return found


def protection_element(requirements: Collection[Requirement]) -> Element:
    """The requirements as a child: ``<protection><tls/><signed/></protection>``."""
    names = sorted(requirement.value for requirement in requirements)
    return Element(ELEMENT, {}, [Element(f"{{{PROTECTION}}}{name}") for name in names])
