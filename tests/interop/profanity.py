"""Drive Profanity 0.13 in a pseudo-terminal; texts go in by its editor command, what came is read from its chat log.

Its log at level DEBUG is the witness for every step: the screen is redrawn in pieces and proves nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.interop.clients import Limits, Presence, Received, Seen, SignIn, State, StockClient, bare_address, listed
from tests.interop.program import Program

_ACCOUNT = """\
[interop]
enabled=true
jid={address}
password={password}
server={host}
port={port}
resource=desk
tls.policy={policy}
presence.last=online
presence.login=online
priority.online=0
priority.chat=0
priority.away=0
priority.xa=0
priority.dnd=0
"""

_PREFERENCES = """\
[ui]
splash=false
vercheck=false
[logging]
chlog=true
[plugins]
load=seen.py
[presence]
autoaway.mode=off
[connection]
reconnect=5
[executables]
compose.editor={editor}
[compose]
editor={editor}
"""

_EDITOR = """\
#!/bin/sh
cat "$HOME/outbox" >"$1"
"""

_PLUGIN = """\
import json

def _say(**line):
    with open("{home}/seen", "a") as out:
        out.write(json.dumps(line) + "\\n")

def prof_on_contact_presence(barejid, resource, presence, status, priority):
    _say(who=barejid, resource=resource, state=presence, note=status or "")

def prof_on_contact_offline(barejid, resource, status):
    _say(who=barejid, resource=resource, state="offline", note=status or "")
"""
"""What it shows of others, by its own interface for plugins: one line for each change of a contact's resource."""

_ENTRY = re.compile(
    r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d) - (?P<sender>[^\s:]+): (?P<text>.*?)\n"
    r"(?=\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d) - |\Z)",
    re.DOTALL | re.MULTILINE,
)


_STATES: dict[str, State] = {
    "online": "online",
    "chat": "online",
    "away": "away",
    "xa": "away",
    "dnd": "busy",
    "offline": "offline",
}


class Profanity(StockClient):
    name = "profanity"
    program = "profanity"
    protocol = "xmpp"
    transports = ("starttls", "tls")
    limits = Limits()
    shows_copies = True
    presence = Presence(
        tells=frozenset({"online", "away", "busy"}),
        shows=frozenset({"online", "away", "busy"}),
        tells_notes=True,
        shows_notes=True,
        answers=True,
        blocks=True,
    )

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        super().__init__(home, sign_in)
        self._talking_to = ""

    def start(self) -> None:
        account = self.sign_in
        data, config = self.home / ".local/share/profanity", self.home / ".config/profanity"
        for folder in (data / "plugins", config):
            folder.mkdir(parents=True, exist_ok=True)
        (data / "plugins" / "seen.py").write_text(_PLUGIN.format(home=self.home))
        editor = self.home / "editor"
        editor.write_text(_EDITOR)
        editor.chmod(0o700)
        (config / "profrc").write_text(_PREFERENCES.format(editor=editor))
        policy = "force" if account.transport == "starttls" else "legacy"
        (data / "accounts").write_text(
            _ACCOUNT.format(
                address=account.address,
                password=account.password,
                host=account.host,
                port=account.port,
                policy=policy,
            )
        )
        self._program = Program(
            "profanity",
            ["profanity", "-a", "interop", "-l", "DEBUG", "-f", str(self.home / "log")],
            self.home,
            terminal=True,
            env={"SSL_CERT_FILE": str(account.ca_file)},  # as if the CA stood in the system's list
        )
        self._wait_log(f"{account.address} logged in successfully")
        # libstrophe writes attributes in an order of its own each time.
        roster = re.compile(r'RECV: <iq (?=[^>]*id="roster")[^>]*type="result"')
        self._program.wait_until(lambda: roster.search(self._log()), "the roster")
        self._type(f"/executable editor set {editor}")

    def _log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.home.glob("log*")))

    def _wait_log(self, text: str, times: int = 1) -> None:
        self._running.wait_until(lambda: self._log().count(text) >= times, f"{text!r} in its log")

    def _type(self, line: str) -> None:
        """Type ``line`` and Enter; return when Profanity logged that it took the line."""
        taken = f"Input received: {line}"
        before = self._log().count(taken)
        self._running.type(line + "\r")
        self._wait_log(taken, before + 1)

    def send(self, to: str, text: str) -> None:
        """``/editor`` puts the file's text on the input line, line ends and all; Enter sends it."""
        if self._talking_to != to:
            self._type(f"/msg {to}")
            self._talking_to = to
        (self.home / "outbox").write_text(text)
        edited, sent = "[Editor] deleted file", "conn: DBG: SENT: <message "
        editings, messages = self._log().count(edited), self._log().count(sent)
        self._running.type("/editor\r")
        self._wait_log(edited, editings + 1)
        self._running.type("\r")
        self._wait_log(sent, messages + 1)

    def received(self) -> list[Received]:
        return [entry for entry in self._entries() if entry.sender != "me"]

    def wait_copy(self, text: str) -> None:
        self._running.wait_until(lambda: Received("me", text) in self._entries(), f"a copy of {text!r}")

    def _entries(self) -> list[Received]:
        shown = []
        for log in sorted((self.home / ".local/share/profanity/chatlogs").rglob("*.log")):
            for entry in _ENTRY.finditer(log.read_text(errors="replace")):
                shown.append(Received(bare_address(entry["sender"]), entry["text"]))
        return shown

    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        wanted = Received(sender, text)
        self._running.wait_until(
            lambda: wanted in self.received(), lambda: f"{wanted}; {listed(self.received())}", seconds
        )

    def tell(self, state: State, note: str = "") -> None:
        sent = "conn: DBG: SENT: <presence "
        before = self._log().count(sent)
        self._type(f"/status set {'dnd' if state == 'busy' else state}" + (f' "{note}"' if note else ""))
        self._wait_log(sent, before + 1)

    def watch(self, who: str) -> None:
        self._type(f"/roster add {who}")
        self._type(f"/sub request {who}")

    def wait_asked(self, who: str) -> None:
        request = re.compile(rf'RECV: <presence (?=[^>]*type="subscribe")[^>]*from="{re.escape(who)}"')
        self._running.wait_until(lambda: request.search(self._log()), f"the request of {who}")

    def answer(self, who: str, granted: bool) -> None:
        self._type(f"/sub {'allow' if granted else 'deny'} {who}")

    def block(self, who: str) -> None:
        self._type(f"/blocked add {who}")

    def seen(self, who: str) -> Seen:
        """The best of the resources it shows."""
        lines = self.home / "seen"
        resources: dict[str, Seen] = {}
        for line in lines.read_text().splitlines() if lines.exists() else ():
            change = json.loads(line)
            if change["who"] == who:
                resources[change["resource"]] = Seen(_STATES[change["state"]], change["note"])
        there = [seen for seen in resources.values() if seen.state != "offline"]
        return (there or list(resources.values()) or [Seen("unknown")])[-1]

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop()
