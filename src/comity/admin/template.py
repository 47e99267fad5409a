"""The text of a new ``comity.toml``: every section explained, safe defaults on, alternatives commented out.

Place on the path: before it. A test holds this text against ``config/sections.py``: every key stands here, and the
value shown for it is its default.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

_HEAD = """\
# Comity: configuration of this server.
#
# A line that begins with # is a remark or a setting that is not in use; remove the # to use it.
# Sizes may be written "64 KiB", times "30 s", "5 min", "72 h". Relative paths count from this file.
# After a change:  comity config check     (every mistake as a sentence, with its cure)
# then             kill -HUP of the server, or start it anew.

[server]
# The domains whose people have their accounts here. This is the only setting that must be there.
domains = [{domains}]

# Messages, accounts, certificates and the control socket. Mode 0700, on a local disk.
# data = "data"


[tls]
# What the server shows. `comity init` made a local authority (data/tls/ca.pem) and a certificate signed by it:
# good for trials and closed networks, where each client is told to trust ca.pem. For the open Internet get one
# from a public authority; its subjectAltName has to list every domain above.
# certificate = "data/tls/server.pem"
# key = "data/tls/server.key"

# Further authorities to believe other servers by, besides those of the operating system.
# trust = "data/tls/ca.pem"


[sip]
# TLS is open to everybody. UDP and TCP are not encrypted: outside 127.0.0.1 they need a network named in
# plaintext_from below. An IPv6 address is written in brackets: "tls://[::]:5061".
"""

_SIP_CLOSED = """\
listen = ["tls://0.0.0.0:5061", "udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]
# So that desk phones of the house can sign in (and see plaintext_from):
# listen = ["tls://0.0.0.0:5061", "udp://0.0.0.0:5060", "tcp://0.0.0.0:5060"]
"""

_SIP_OPEN = """\
listen = ["tls://0.0.0.0:5061", "udp://{any}:5060", "tcp://{any}:5060"]
"""

_MIDDLE = """\


[xmpp]
# For people: 5222 begins plain and becomes TLS before any password is sent; 5223 is TLS from the first octet.
client = ["tcp://0.0.0.0:5222", "tls://0.0.0.0:5223"]

# For other XMPP servers; both sides show a certificate.
# server = ["tcp://0.0.0.0:5269"]

# For components of others that attach to us (XEP-0114), such as a bridge to another network: see [[xmpp.accept]].
# component_listen = ["tcp://127.0.0.1:5347"]

# Beside an XMPP server of yours, as its component (XEP-0114): one block for each. The domain is one of [server] domains
# above, or one that a [[route]] below leads on to; the secret is the one you wrote in that server's configuration; keep
# this file readable by its owner only. "serves" are the domains whose people reach us through that server. Without tls
# only on this machine or in a network of plaintext_from.
# [[xmpp.component]]
# domain = "pbx.example.org"
# host = "127.0.0.1"
# port = 5347
# tls = false
# secret = "…"
# serves = ["chat.example.org"]

# A component that may attach to us; it speaks for its own domain only.
# [[xmpp.accept]]
# domain = "irc.example.org"
# secret = "…"


# [apex]
# APEX (RFC 3340): 913 for applications, 912 for other relays.
# listen = ["tcp://0.0.0.0:913"]


# [web]
# Console, metrics and health. Without TLS on this machine only.
# listen = ["http://127.0.0.1:8080"]


# [xcap]
# Presence rules and contact lists by XCAP for SIP clients; HTTPS only, never on the console's address.
# listen = ["https://0.0.0.0:8444"]


# Other domains: one block for each, such as your own PBX; "*" means all others. Your own people may always write there;
# "transit" names other domains whose people may too, through here.
# [[route]]
# domain = "pbx.example.org"
# via = "sip"
# next_hop = "tls://10.0.0.2:5061"
# transit = ["example.net"]
# More for a SIP server: another name for the domain on that link, how to sign in there, addresses to register there as ours, how
# often to ask whether it is there, and whether it takes pres: addresses.
# as = "pbx.example.net"
# user = "comity"
# password_file = "trunk.password"
# realm = "pbx.example.net"
# register = ["1001@pbx.example.net"]
# keep_alive = "60 s"
# pres_uris = false


# Somebody who has another name on the link to a server beside this one: one block for each.
# [[map]]
# address = "alice@example.org"
# on = "pbx.example.org"
# is = "1001@pbx.example.org"


# Domains without a block above: found by DNS, always under TLS. `comity dns example.org` prints the records that others find you by.
# Their servers prove themselves by certificates of the authorities in [tls] trust; for the open Internet that is the file
# with the system's, /etc/ssl/certs/ca-certificates.crt.
# [federation]
# dns = true
# order = ["xmpp", "sip", "apex"]
# targets = 8
# networks = ["192.168.1.0/24"]
# nameservers = ["127.0.0.1"]


# Other servers that may send here. One whose certificate [tls] trust vouches for needs no block to speak for the domains in
# it; a block names one that is known by its address, or that speaks for others too. Nobody speaks for your own domains.
# [[peer]]
# name = "pbx.example.org"
# address = ["10.0.0.2"]
# speaks_for = ["branch.example.org"]
# asserted_identity = false


[store]
# "sqlite" keeps everything in the data directory; "nats" is for a cluster of three or more servers.
engine = "sqlite"
# engine = "nats"
# url = "tls://nats1.example.org:4222,tls://nats2.example.org:4222,tls://nats3.example.org:4222"


[policy]
# Who a sender is cannot be forged and is not for sale here: there is no setting that switches the check off.

# Networks from which unencrypted SIP is taken, besides this machine. Passwords are not sent in the clear even
# there, but everybody on that network can read the messages.
"""

_POLICY = """\

# Desk phones often know no better than MD5; false if all of yours do.
sip_md5 = true

# Old XMPP programs know no better than SCRAM-SHA-1; false if all of yours do.
scram_sha1 = true

# Work that a guess at a stolen key costs, for passwords set from now on. Pidgin, Finch and BitlBee refuse more than 65536.
# scram_iterations = 100000

# Someone wants to see a person's presence about whom that person decided nothing: "ask" the person, or "deny"; or let those
# who are in the person's "contacts", of the same "domain", or "everyone" see it and ask about the others. Each person may
# choose differently. Programs that cannot ask (most SIP phones) go well with "contacts" or "domain".
presence_default = "ask"

# Domains of old XMPP servers that have no certificate anybody vouches for: they are believed by a question put to their DNS (XEP-0220).
# dialback = ["old.example.net"]

# Messages and presence are independent of one another: either can be switched off.
# messages = true
# presence = true

# What messages to (require) or from (require_from) a domain, an account or everybody ("*") must have on every hop: "tls",
# "signed", "encrypted". What cannot keep it is refused, with a report to the sender. `comity account policy` sets the
# same for one account. verify looks at signatures by the authorities of [security] below: "mark" or "refuse" those verdicts.
# With operations "signed", who asks to watch somebody's presence has to sign that, believed by the same authorities.
# [[policy.protection]]
# of = "example.org"
# require = ["tls"]
# require_from = ["tls"]
# verify = "mark"
# verdicts = ["bad-signature", "signed-by-other", "malformed"]
# operations = "signed"


# [security]
# Authorities of people's certificates, for verify and operations above. Without it no signature is looked at here.
# trust = "people-ca.pem"


[limits]
# Each bound has a reason (docs: reference/limits); these are the ones that are changed most.
# user_messages = 10              # a second, lasting
# user_message_burst = 100
# connections = 20000
# connections_per_address = 50
# stored_messages = 1000          # waiting for one person
# stored_octets = "64 MiB"
# message_lifetime = "72 h"       # after that its sender is told
"""


def configuration_text(domains: Sequence[str], lan: IPv4Network | IPv6Network | None) -> str:
    """Write the file for ``domains``; with ``lan``, UDP and TCP are open and plaintext is taken from there."""
    quoted = ", ".join(f'"{domain}"' for domain in domains)
    if lan is None:
        sip = _SIP_CLOSED
        exempt = '# plaintext_from = ["192.168.1.0/24"]\n'
    else:
        everywhere = "[::]" if lan.version == 6 else "0.0.0.0"  # noqa: S104  that is what --lan asks for
        sip = _SIP_OPEN.format(any=everywhere)
        exempt = f'plaintext_from = ["{lan}"]\n'
    return _HEAD.format(domains=quoted) + sip + _MIDDLE + exempt + _POLICY
