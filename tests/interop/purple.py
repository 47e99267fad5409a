"""Drive libpurple 2.14, the library Pidgin, Finch and BitlBee are made of, by ``ctypes``.

libpurple brings the accounts and the protocols; the few lines here are its "user interface": GLib's main loop, and
signals printed as they come. A certificate of ours is put where a user's "Accept" puts it, since libpurple has no place
for an authority of one's own. Its SIP account ("SIMPLE") cannot sign in here: it answers a challenge without ``qop``.
"""

from __future__ import annotations

import ctypes
import html
import json
import os
import re
import sys
from ctypes import CFUNCTYPE, byref, c_char_p, c_int, c_uint, c_ulong, c_void_p, cast
from typing import Any

from tests.interop.clients import Limits, Presence
from tests.interop.lines import LibraryClient, Settings, say

PLUGINS = "/usr/lib/x86_64-linux-gnu/purple-2"


class PurpleXmpp(LibraryClient):
    name = "libpurple"
    program = "libpurple.so.0"
    runs = __name__
    protocol = "xmpp"
    transports = ("starttls", "tls")
    limits = Limits()
    shows = frozenset({"typing"})
    """It tells of typing only people whose presence it sees."""
    presence = Presence(
        tells=frozenset({"online", "away", "busy"}),
        shows=frozenset({"online", "away", "busy"}),
        tells_notes=True,
        shows_notes=True,
        answers=True,
        blocks=True,
    )

    def settings(self) -> Settings:
        account = self.sign_in
        accepted = self.home / "purple/certificates/x509/tls_peers"
        accepted.mkdir(parents=True, exist_ok=True)
        chain = (account.ca_file.parent / "server.pem").read_text()
        end = "-----END CERTIFICATE-----\n"
        (accepted / account.host).write_text(chain[: chain.index(end) + len(end)])
        return {
            "plugin": "prpl-jabber",
            "name": f"{account.address}/{self.home.name}",
            "password": account.password,
            "string connect_server": account.host,
            "int port": account.port,
            "string connection_security": "require_tls" if account.transport == "starttls" else "old_ssl",
            "folder": str(self.home / "purple"),
        }

    def answer(self, who: str, granted: bool) -> None:
        """It said yes when it was asked."""
        if not granted:
            raise ValueError("its driver says yes to everybody")
        self.wait_asked(who)


# --- the program: libpurple's smallest user interface ------------------------------------------------------------

_READ, _WRITE = 1, 2
_IO_IN, _IO_OUT, _IO_ERR, _IO_HUP, _IO_NVAL = 1, 4, 8, 16, 32
_AVAILABLE = 2
"""PURPLE_STATUS_AVAILABLE."""
_ACCEPT = 1
"""PURPLE_ACCOUNT_RESPONSE_ACCEPT."""
_PRIMITIVES = {"online": _AVAILABLE, "busy": 3, "away": 5}
"""PURPLE_STATUS_AVAILABLE, _UNAVAILABLE, _AWAY."""
_STATES = {
    "available": "online",
    "freeforchat": "online",
    "away": "away",
    "extended_away": "away",
    "dnd": "busy",
    "offline": "offline",
}
"""By the identifiers of its XMPP plugin."""
_SEND, _TYPING = 1, 1
"""PURPLE_MESSAGE_SEND, PURPLE_TYPING."""

_Watch = CFUNCTYPE(c_int, c_int, c_int, c_void_p)
_Input = CFUNCTYPE(None, c_void_p, c_int, c_int)
_InputAdd = CFUNCTYPE(c_uint, c_int, c_int, c_void_p, c_void_p)
_OnConnection = CFUNCTYPE(None, c_void_p, c_void_p)
_OnError = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_void_p)
_OnText = CFUNCTYPE(None, c_void_p, c_char_p, c_char_p, c_void_p, c_int, c_void_p)
_OnTyping = CFUNCTYPE(None, c_void_p, c_char_p, c_void_p)
_OnAsked = CFUNCTYPE(c_int, c_void_p, c_char_p, c_char_p, c_void_p)
_OnStatus = CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_void_p)
_OnBuddy = CFUNCTYPE(None, c_void_p, c_void_p)
_OnTimer = CFUNCTYPE(c_int, c_void_p)


class _EventLoopOps(ctypes.Structure):
    _fields_ = [
        (name, c_void_p)
        for name in (
            "timeout_add",
            "timeout_remove",
            "input_add",
            "input_remove",
            "input_get_error",
            "timeout_add_seconds",
            "reserved2",
            "reserved3",
            "reserved4",
        )
    ]


class _Library:
    """A C library whose functions are given their types as they are called."""

    def __init__(self, name: str) -> None:
        self._library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)  # its plugins look their functions up in it

    def call(self, name: str, result: Any, *arguments: tuple[Any, Any]) -> Any:
        function = self._library[name]
        function.restype, function.argtypes = result, [kind for kind, _ in arguments]
        return function(*(value for _, value in arguments))

    def address(self, name: str) -> int | None:
        return cast(self._library[name], c_void_p).value


class _Interface:
    """What libpurple calls, and the orders given to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._glib, self._purple = _Library("libglib-2.0.so.0"), _Library("libpurple.so.0")
        self._kept: list[Any] = []  # callbacks have to outlive the calls that take them
        self._account = 0
        self._waiting = b""

    def run(self) -> None:
        purple = self._purple
        purple.call("purple_util_set_user_dir", None, (c_char_p, self._settings["folder"].encode()))
        purple.call("purple_plugins_add_search_path", None, (c_char_p, PLUGINS.encode()))
        glib = self._glib.address
        operations = _EventLoopOps(
            timeout_add=glib("g_timeout_add"),
            timeout_remove=glib("g_source_remove"),
            input_add=self._callback(_InputAdd, self._input_add),
            input_remove=glib("g_source_remove"),
            timeout_add_seconds=glib("g_timeout_add_seconds"),
        )
        self._kept.append(operations)
        purple.call("purple_eventloop_set_ui_ops", None, (c_void_p, cast(byref(operations), c_void_p)))
        assert purple.call("purple_core_init", c_int, (c_char_p, b"comity-tests")), "libpurple does not start"
        purple.call("purple_set_blist", None, (c_void_p, purple.call("purple_blist_new", c_void_p)))
        for module, signal, kind, method in (
            ("connections", b"signed-on", _OnConnection, self._signed_on),
            ("connections", b"connection-error", _OnError, self._error),
            ("conversations", b"received-im-msg", _OnText, self._text),
            ("conversations", b"buddy-typing", _OnTyping, self._typing),
            ("accounts", b"account-authorization-requested", _OnAsked, self._asked),
            ("blist", b"buddy-status-changed", _OnStatus, self._status),
            ("blist", b"buddy-signed-on", _OnBuddy, self._buddy),
            ("blist", b"buddy-signed-off", _OnBuddy, self._buddy),
        ):
            purple.call(
                "purple_signal_connect",
                c_ulong,
                (c_void_p, purple.call(f"purple_{module}_get_handle", c_void_p)),
                (c_char_p, signal),
                (c_void_p, id(self)),
                (c_void_p, self._callback(kind, method)),
                (c_void_p, None),
            )
        self._sign_in()
        self._watch(0, _IO_IN | _IO_HUP, self._orders)
        loop = self._glib.call("g_main_loop_new", c_void_p, (c_void_p, None), (c_int, 0))
        self._glib.call("g_main_loop_run", None, (c_void_p, loop))

    def _callback(self, kind: Any, method: Any) -> int | None:
        made = kind(method)
        self._kept.append(made)
        return cast(made, c_void_p).value

    def _watch(self, descriptor: int, condition: int, method: Any) -> int:
        handle: int = self._glib.call(
            "g_unix_fd_add_full",
            c_uint,
            (c_int, 0),
            (c_int, descriptor),
            (c_int, condition),
            (c_void_p, self._callback(_Watch, method)),
            (c_void_p, None),
            (c_void_p, None),
        )
        return handle

    def _input_add(self, descriptor: int, wanted: int, function: int, data: int) -> int:
        call = _Input(function)
        condition = _IO_ERR | _IO_HUP | _IO_NVAL
        condition |= (_IO_IN if wanted & _READ else 0) | (_IO_OUT if wanted & _WRITE else 0)

        def ready(found: int, happened: int, _: int) -> int:
            is_readable, is_writable = happened & ~_IO_OUT, happened & ~_IO_IN
            call(data, found, (_READ if is_readable else 0) | (_WRITE if is_writable else 0))
            return 1

        return self._watch(descriptor, condition, ready)

    def _sign_in(self) -> None:
        purple, settings = self._purple, self._settings
        account = self._account = purple.call(
            "purple_account_new",
            c_void_p,
            (c_char_p, settings["name"].encode()),
            (c_char_p, settings["plugin"].encode()),
        )
        purple.call("purple_account_set_password", None, (c_void_p, account), (c_char_p, settings["password"].encode()))
        for key, value in settings.items():
            kind, _, name = key.partition(" ")
            if name:
                given = (c_char_p, value.encode()) if kind == "string" else (c_int, int(value))
                purple.call(f"purple_account_set_{kind}", None, (c_void_p, account), (c_char_p, name.encode()), given)
        purple.call("purple_accounts_add", None, (c_void_p, account))
        purple.call("purple_account_set_enabled", None, (c_void_p, account), (c_char_p, b"comity-tests"), (c_int, 1))
        self._tell("online", "")

    def _signed_on(self, connection: int, _: int) -> None:
        say(state="started")

    def _error(self, connection: int, reason: int, text: bytes, _: int) -> None:
        """As Pidgin: connect again after a while (there a random one of 8 s or more)."""
        say(state=f"error: {text.decode()}")
        self._glib.call(
            "g_timeout_add",
            c_uint,
            (c_uint, 2000),
            (c_void_p, self._callback(_OnTimer, self._connect_again)),
            (c_void_p, None),
        )

    def _connect_again(self, _: int) -> int:
        self._purple.call("purple_account_connect", None, (c_void_p, self._account))
        return 0

    def _text(self, account: int, sender: bytes, text: bytes, conversation: int, flags: int, _: int) -> None:
        plain = html.unescape(re.sub("<[^>]*>", "", re.sub("(?i)<br */?>", "\n", text.decode())))
        say(**{"from": sender.decode(), "text": plain})

    def _typing(self, account: int, sender: bytes, _: int) -> None:
        say(typing=sender.decode())

    def _tell(self, state: str, note: str) -> None:
        purple = self._purple
        status = purple.call("purple_savedstatus_new", c_void_p, (c_char_p, None), (c_int, _PRIMITIVES[state]))
        text = html.escape(note, quote=False).encode() if note else None
        purple.call("purple_savedstatus_set_message", None, (c_void_p, status), (c_char_p, text))
        purple.call("purple_savedstatus_activate", None, (c_void_p, status))

    def _asked(self, account: int, who: bytes, message: bytes, _: int) -> int:
        """Its user says yes to everybody: libpurple wants the answer at once, or by a dialogue of its user interface."""
        say(asked=who.decode())
        return _ACCEPT

    def _status(self, buddy: int, before: int, now: int, _: int) -> None:
        self._buddy(buddy, 0)

    def _buddy(self, buddy: int, _: int) -> None:
        purple = self._purple
        who = purple.call("purple_buddy_get_name", c_char_p, (c_void_p, buddy)).decode()
        presence = purple.call("purple_buddy_get_presence", c_void_p, (c_void_p, buddy))
        status = purple.call("purple_presence_get_active_status", c_void_p, (c_void_p, presence))
        name = purple.call("purple_status_get_id", c_char_p, (c_void_p, status)).decode()
        note = purple.call("purple_status_get_attr_string", c_char_p, (c_void_p, status), (c_char_p, b"message"))
        say(seen=who, **{"as": _STATES[name], "note": html.unescape((note or b"").decode())})

    def _watch_buddy(self, who: bytes) -> None:
        purple, account = self._purple, (c_void_p, self._account)
        buddy = purple.call("purple_buddy_new", c_void_p, account, (c_char_p, who), (c_char_p, None))
        purple.call("purple_blist_add_buddy", None, (c_void_p, buddy), *[(c_void_p, None)] * 3)
        purple.call("purple_account_add_buddy", None, account, (c_void_p, buddy))

    def _orders(self, descriptor: int, happened: int, _: int) -> int:
        octets = os.read(descriptor, 65536)
        if not octets:
            sys.exit()
        *lines, self._waiting = (self._waiting + octets).split(b"\n")
        for line in lines:
            self._carry_out(json.loads(line))
        return 1

    def _carry_out(self, order: dict[str, str]) -> None:
        connection = self._purple.call("purple_account_get_connection", c_void_p, (c_void_p, self._account))
        if order["do"] == "tell":
            self._tell(order["state"], order["note"])
            say(state="told")
            return
        to = order["to"].encode()
        if order["do"] == "watch":
            self._watch_buddy(to)
            say(state="watching")
            return
        if order["do"] == "block":
            self._purple.call("serv_add_deny", None, (c_void_p, connection), (c_char_p, to))
            say(state="blocked")
            return
        if order["do"] == "typing":
            self._purple.call("serv_send_typing", c_uint, (c_void_p, connection), (c_char_p, to), (c_int, _TYPING))
            say(state="typing told")
            return
        markup = html.escape(order["text"], quote=False).replace("\n", "<br>").encode()
        done = self._purple.call(
            "serv_send_im", c_int, (c_void_p, connection), (c_char_p, to), (c_char_p, markup), (c_int, _SEND)
        )
        say(state="sent" if done > 0 else f"not sent: {done}")


if __name__ == "__main__":
    _Interface(json.loads(sys.argv[1])).run()
