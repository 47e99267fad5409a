#!/usr/bin/env python3
"""Comity beside its peers, in one run: every scenario, every server, one after the other in turn.

Figures go to bench/results/suite.json; with --publish also to docs/reference/performance.json, and the tables between
the markers of docs/reference/performance.md are written anew from it. --tables only writes the tables.

  S1  SIP to XMPP and back, over UDP and TCP      Comity, Kamailio's xmpp module
  S2  SIP to SIP; stored for users who are away   Comity, Kamailio (t_relay; msilo)
  S3  XMPP to XMPP with 2, 20 and 200 users       Comity, Prosody, ejabberd
  S4  one presentity, 10, 100 and 1,000 watchers  Comity, Kamailio (SIP), Prosody and ejabberd (XMPP)
  S5  users signed in who do nothing              as S2 and S3
  S6  APEX to XMPP and back                         Comity, beside its own SIP/TCP to XMPP
  component  S1 through a stock Prosody           Comity and Kamailio's xmpp module as its components
  floors     the promised rates and half of them  Comity
  overload   three times what it can carry        Comity
  signed     signed objects beside unsigned ones  Comity
  recovery   kill -9 with a full store            Comity

Each server and the rig share the cores of --cores. Peers that are not installed are named and left out.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench
import recovery
import tables

import peers

sys.path[:0] = [str(Path(__file__).parent.parent)]
from tests.load import relay  # noqa: E402  the tests stand beside this folder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "suite.json"
PROFILES = json.loads((HERE / "conf" / "profiles.json").read_text())
PARTS = ("s1", "s2", "s3", "s4", "s5", "s6", "component", "floors", "overload", "signed", "recovery")
PACKAGES = {"kamailio": "kamailio", "prosody": "prosody", "ejabberd": "ejabberdctl"}
PORTS = {"udp": 7100, "tcp": 7100}


def installed(profile: str) -> bool:
    """True if the server of a profile can be started here."""
    name = profile.partition("-")[0]
    return name == "comity" or shutil.which(PACKAGES[name], path=os.environ["PATH"] + ":/usr/sbin") is not None


def sip(profile: str, prefix: str, transport: str, users: int, **more: object) -> dict[str, object]:
    """The rig's SIP users of one side."""
    p = PROFILES[profile]
    end: dict[str, object] = {"kind": "sip", "host": "127.0.0.1", "port": p["sip_port"], "domain": p["sip_domain"]}
    end |= {"users": users, "prefix": prefix}
    if p.get("sip_pass"):
        end["pass"] = p["sip_pass"]
    if transport == "tcp":
        end |= {"transport": "tcp", "conns": 4, "tcpmode": "reuse"}
    return end | more


def xmpp(profile: str, prefix: str, users: int, **more: object) -> dict[str, object]:
    """The rig's XMPP users of one side."""
    return {**PROFILES[profile]["xmpp"], "host": "127.0.0.1", "users": users, "prefix": prefix, **more}


def apex(profile: str, prefix: str, users: int, **more: object) -> dict[str, object]:
    """The rig's APEX users of one side, each attached as its own endpoint."""
    return {**PROFILES[profile]["apex"], "host": "127.0.0.1", "users": users, "prefix": prefix, **more}


def ends(scenario: str, profile: str, users: int) -> tuple[dict[str, object], dict[str, object]]:
    """Source and sink of a scenario by its name ("s1 sip-udp xmpp")."""
    _, source, sink = scenario.split()[:3]
    p = PROFILES[profile]
    if source == "xmpp":
        src = xmpp(profile, "a", users)
    elif source == "apex":
        src = apex(profile, "a", users)
    else:
        src = sip(profile, "a", source.partition("-")[2], users)
    if sink == "xmpp":
        dst = xmpp(profile, "b", users, quickack=1)
        if source.startswith("sip"):
            dst["addr"] = p["addr_of_xmpp_user"]
    elif sink == "apex":
        dst = apex(profile, "b", users)
    elif source == "xmpp":
        dst = sip(profile, "b", "udp", users, addr=p["addr_of_sip_user"])
        if sink == "sip-tcp":
            # Comity reaches a phone by the connection it registered on; Kamailio's gateway connects to it.
            dst |= {"transport": "tcp", "conns": 4, "tcpmode": "reuse"} if profile.startswith("comity") else {"transport": "tcp"}
        dst |= p["sip_sink"]
    else:
        dst = sip(profile, "b", sink.partition("-")[2], users, lport=7100)
    return src, dst


def watched(profile: str, kind: str, watchers: int) -> list[dict[str, object]]:
    """A presentity, and its watchers by SIP, by XMPP, or half and half; where it can, the presentity uses SIP for "both"."""
    if kind == "xmpp":
        return [xmpp(profile, "pres", 1), xmpp(profile, "w", watchers, quickack=1)]
    source = sip(profile, "pres", "udp", 1, lport=7090)
    if kind == "sip":
        return [source, sip(profile, "w", "udp", watchers, reg=0, lport=7100)]
    half = watchers // 2
    return [
        source,
        sip(profile, "w", "udp", half, reg=0, lport=7100),
        xmpp(profile, "w", watchers - half, first=half, quickack=1),
    ]


SCENARIOS: dict[str, tuple[tuple[str, ...], int]] = {
    # name: (profiles, users of each side)
    "s1 sip-udp xmpp": (("comity", "kamailio-xmpp"), 10),
    "s1 sip-tcp xmpp": (("comity", "kamailio-xmpp"), 10),
    "s1 xmpp sip-udp": (("comity", "kamailio-xmpp"), 10),
    "s1 xmpp sip-tcp": (("comity", "kamailio-xmpp-tcp"), 10),
    "s2 sip-udp sip-udp": (("comity", "kamailio"), 10),
    "s2 sip-tcp sip-tcp": (("comity", "kamailio"), 10),
    "s3 xmpp xmpp 2": (("comity", "prosody", "ejabberd"), 1),
    "s3 xmpp xmpp 20": (("comity", "prosody", "ejabberd"), 10),
    "s3 xmpp xmpp 200": (("comity", "prosody", "ejabberd"), 100),
}
BESIDE = {
    # S1 through a stock Prosody, as its component: Comity beside Kamailio's gateway
    "s1 sip-udp xmpp": ("comity-component", "kamailio-xmpp-prosody"),
    "s1 xmpp sip-udp": ("comity-component", "kamailio-xmpp-prosody"),
}
WATCHED = {
    # protocol of the watchers: profiles
    "sip": ("comity-pres", "kamailio-presmem"),
    "xmpp": ("comity-pres", "prosody", "ejabberd"),
    "both": ("comity-pres",),
}
WATCHERS = (10, 100, 1000)
APEX = ("s6 sip-tcp xmpp", "s6 apex xmpp", "s6 xmpp apex", "s6 apex apex")
FLOORS = {"s3 xmpp xmpp 128": 2000, "s1 sip-udp xmpp": 1500, "s1 sip-tcp xmpp": 1500, "s1 xmpp sip-udp": 1000}
OVERLOADS = ("s1 sip-udp xmpp", "s1 sip-udp xmpp again", "s1 sip-tcp xmpp", "s3 xmpp xmpp 128")


class Suite:
    """One run and what it found."""

    def __init__(self, repeats: int, seconds: float, overload_seconds: float, queued: int) -> None:
        self.repeats = repeats
        self.seconds = seconds
        self.overload_seconds = overload_seconds
        self.queued = queued
        self.found: dict[str, object] = {
            "machine": machine(),
            "rows": [],
            "offline": [],
            "presence": [],
            "idle": [],
            "apex": [],
            "component": [],
        }
        self.found |= {"floors": [], "overload": [], "signed": [], "recovery": []}

    def note(self, part: str, row: dict[str, object]) -> None:
        """Keep a row, also on disk: a run that is cut short has not been for nothing."""
        rows = self.found[part]
        assert isinstance(rows, list)
        rows.append(row)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(self.found, indent=1))

    def message_run(self, scenario: str, profile: str, users: int, pids: str, **options: object) -> dict:
        """One run of the rig; what it says is printed and given back."""
        src, dst = ends(scenario, profile, users)
        result = bench.imload("msg", src, dst, pids=pids, size=64, **options)
        bench.line(f"{scenario}, {profile}", result)
        return result

    def messages(self, part: str) -> None:
        """S1, S2 and S3: closed loop with 64 outstanding, then open loop at half of what that carried."""
        for scenario, (profiles, users) in SCENARIOS.items():
            if not scenario.startswith(part):
                continue
            for profile in filter(available, profiles):
                with Running(profile) as pids:
                    pace = self.message_run(scenario, profile, users, pids, window=64, count=2000)
                    repeats = []
                    for _ in range(self.repeats):
                        count = max(1000, int(pace.get("throughput", 1000) * self.seconds))
                        most = self.message_run(scenario, profile, users, pids, window=64, count=count)
                        rate = int(most.get("throughput", 0) / 2)
                        half = self.message_run(
                            scenario, profile, users, pids, rate=rate, count=max(500, int(rate * self.seconds))
                        )
                        repeats.append({"max": most, "half": half})
                    self.note("rows", {"scenario": scenario, "server": profile, "repeats": repeats})

    def component(self) -> None:
        """S1 through Prosody by a component: closed loop with 64 outstanding; the processor time is that of both programs."""
        for scenario, profiles in BESIDE.items():
            for profile in filter(available, profiles):
                with Running(profile) as pids:
                    self.message_run(scenario, profile, 10, pids, window=64, count=1000)
                    count = int(1000 * self.seconds)
                    repeats = [
                        self.message_run(scenario, profile, 10, pids, window=64, count=count) for _ in range(self.repeats)
                    ]
                    self.note("component", {"scenario": scenario, "server": profile, "repeats": repeats})

    def offline(self) -> None:
        """S2 with recipients who are away: how fast messages are stored."""
        for profile in filter(available, ("comity", "kamailio-msilo-one")):
            with Running(profile) as pids:
                repeats = []
                for _ in range(self.repeats):
                    src, dst = ends("s2 sip-udp sip-udp", profile, 10)
                    dst |= {"reg": 0, "prefix": "off"}
                    count = int(1500 * self.seconds)
                    options = {"window": 64, "count": count, "drain": 2, "until_resp": True}
                    result = bench.imload("msg", src, dst, pids=pids, size=64, **options)
                    wall = result.get("wall_s", 0)
                    print(f"  offline, {profile}: stored {result.get('accepted')} of {count} in {wall} s", flush=True)
                    repeats.append(result)
                self.note("offline", {"server": profile, "repeats": repeats})

    def presence(self) -> None:
        """S4: somebody whom many watch comes and goes; each change has to be seen by all before the next is made."""
        self.found["presence_machine"] = machine("comity-pres.toml")
        for watchers in WATCHERS:
            publishes = max(20, int(min(100, 4000 // watchers) * self.seconds))
            for kind, profiles in WATCHED.items():
                for profile in filter(available, profiles):
                    repeats = []
                    for _ in range(self.repeats):
                        with Running(profile) as pids:
                            src, *groups = watched(profile, kind, watchers)
                            second = {"dst2": bench.spec(groups[1])} if len(groups) > 1 else {}
                            options = {"publishes": publishes, "drain": 20, "gap": 0.02, "timeout": 600}
                            result = bench.imload("pres", src, groups[0], pids=pids, size=64, **second, **options)
                        said = {
                            key: result.get(key) for key in ("server_cpu_ms_per_notify", "lost", "last_ms", "error")
                        }
                        print(f"  {watchers} watchers by {kind}, {profile}: {said}", flush=True)
                        repeats.append(result)
                    self.note("presence", {"server": profile, "kind": kind, "watchers": watchers, "repeats": repeats})

    def apex(self) -> None:
        """S6: one server, all in turn within each repeat, so that a busy moment of the machine touches all of them."""
        self.found["apex_machine"] = machine("comity-apex.toml")
        with Running("comity-apex") as pids:
            for scenario in APEX:
                self.message_run(scenario, "comity-apex", 10, pids, window=64, count=2000)
            repeats: list[dict] = []
            for _ in range(self.repeats):
                pair = {}
                for scenario in APEX:
                    count = int(1500 * self.seconds)
                    most = self.message_run(scenario, "comity-apex", 10, pids, window=64, count=count)
                    rate = int(most.get("throughput", 0) / 2)
                    half = self.message_run(
                        scenario, "comity-apex", 10, pids, rate=rate, count=max(500, int(rate * self.seconds))
                    )
                    pair[scenario] = {"max": most, "half": half}
                repeats.append(pair)
        for scenario in APEX:
            self.note("apex", {"scenario": scenario, "repeats": [pair[scenario] for pair in repeats]})

    def idle(self) -> None:
        """S5: what a user who does nothing costs."""
        cases = [("comity", "xmpp", 1000), ("comity", "sip", 1000), ("kamailio", "sip", 1000)]
        cases += [("prosody", "xmpp", 1000), ("ejabberd", "xmpp", 1000)]
        for profile, kind, users in cases:
            if not available(profile):
                continue
            repeats = []
            for _ in range(self.repeats):
                with Running(profile, users) as pids:
                    if kind == "xmpp":
                        src = xmpp(profile, "i", users)
                    else:
                        src = sip(profile, "i", "udp", users, lport=7100)
                    result = bench.imload("idle", src, pids=pids, hold=2 * self.seconds, setup=120, timeout=400)
                    print(
                        f"  idle, {profile}, {users} {kind} users: {result.get('pss_kb_per_user')} kB each", flush=True
                    )
                    repeats.append(result)
            self.note("idle", {"server": profile, "kind": kind, "users": users, "repeats": repeats})

    def floors(self) -> None:
        """The promised rates, and half of them, for which the delay is promised."""
        for scenario, floor in FLOORS.items():
            with Running("comity") as pids:
                self.message_run(scenario, "comity", 64, pids, window=64, count=2000)
                repeats = []
                for _ in range(self.repeats):
                    run = {}
                    for name, rate in (("full", floor), ("half", floor // 2)):
                        count = int(rate * self.seconds)
                        run[name] = self.message_run(scenario, "comity", 64, pids, rate=rate, count=count)
                    repeats.append(run)
                self.note("floors", {"scenario": scenario, "floor": floor, "repeats": repeats})

    def overload(self) -> None:
        """Three times the capacity offered; then at once a third of it: is all as before?"""
        for scenario in OVERLOADS:
            again = {"retrans": True} if scenario.endswith("again") else {}
            with Running("comity") as pids:
                repeats = []
                for _ in range(self.repeats):
                    count = int(2000 * self.seconds)
                    most = self.message_run(scenario, "comity", 64, pids, window=64, count=count)
                    rate = int(3 * most["throughput"])
                    count = int(rate * self.overload_seconds)
                    wait = {"drain": 40} if again else {}
                    over = self.message_run(scenario, "comity", 64, pids, rate=rate, count=count, **again, **wait)
                    rate = int(most["throughput"] / 3)
                    after = self.message_run(scenario, "comity", 64, pids, rate=rate, count=int(rate * self.seconds))
                    repeats.append({"max": most, "over": over, "after": after})
                self.note("overload", {"scenario": scenario, "repeats": repeats})

    def signed(self) -> None:
        """Relaying a signed object beside an unsigned one of the same size; the clients are ours (tests/load/relay.py)."""
        with tempfile.TemporaryDirectory() as directory:
            for found in relay.measure(Path(directory), max(2, round(2 * self.repeats * self.seconds))):
                print(f"  {found}", flush=True)
                self.note("signed", dataclasses.asdict(found))

    def recovery(self) -> None:
        """Kill -9 with a full store: when is it there again, and how fast does what waited go out?"""
        self.note("recovery", recovery.measure(self.queued, self.repeats))


class Running:
    """A server of a profile, as a context; gives the process IDs to account for."""

    def __init__(self, profile: str, users: int = 2000) -> None:
        self.names = PROFILES[profile]["peers"]
        self.users = users

    def __enter__(self) -> str:
        os.environ["BENCH_USERS"] = str(self.users)
        return ",".join(str(peers.start(name)) for name in self.names)

    def __exit__(self, *exc: object) -> None:
        for name in self.names:
            peers.stop(name)


def available(profile: str) -> bool:
    """True if the server can be started; says so if it cannot."""
    if installed(profile):
        return True
    print(f"== {profile}: not installed, left out", flush=True)
    return False


def machine(configuration: str = "comity.toml") -> dict[str, object]:
    """Where and with what the figures were made."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    git = ["git", "-C", str(HERE.parent), "describe", "--always", "--dirty"]
    versions = {}
    for package in PACKAGES:
        found = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
        )
        versions[package] = found.stdout.strip()
    return {
        "when": time.strftime("%F %H:%M"),
        "cpu": model[1] if model else platform.machine(),
        "cores_of_machine": os.cpu_count(),
        "cores": sorted(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "versions": versions,
        "configuration": (HERE / configuration).read_text(),
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
    }


def settle(cores: str) -> None:
    """Stay on ``cores`` with all children, before others if that is allowed."""
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")} & os.sched_getaffinity(0))
    try:
        os.nice(-15)
    except PermissionError:
        print("not root: other programs count as much as the measured ones", flush=True)
    peers.favour(os.getpid())


def main() -> None:
    """Run what was asked for."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=text)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat of everything but recovery: five minutes"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of every figure (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run (default: 5)")
    parser.add_argument("--overload-seconds", type=float, default=20.0, help="of one overload (default: 20)")
    parser.add_argument("--queued", type=int, default=100_000, help="messages waiting at the kill (default: 100,000)")
    parser.add_argument("--cores", default="0,1", help="for server and rig together (default: 0,1)")
    parser.add_argument("--publish", action="store_true", help="write docs/reference/performance.json and .md")
    parser.add_argument("--tables", action="store_true", help="measure nothing, write the .md from the .json")
    options = parser.parse_args()
    if options.tables:
        tables.write()
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    parts = options.parts or [part for part in PARTS if part != "recovery" or not options.quick]
    if options.quick:
        options.repeats, options.seconds, options.overload_seconds = 1, 1.0, 4.0
    settle(options.cores)
    suite = Suite(options.repeats, options.seconds, options.overload_seconds, options.queued)
    for part in parts:
        print(f"== {part}", flush=True)
        if part in ("s1", "s2", "s3"):
            suite.messages(part)
        if part == "s2":
            suite.offline()
        if part in ("s4", "s5", "s6", "component", "floors", "overload", "signed", "recovery"):
            getattr(suite, {"s4": "presence", "s5": "idle", "s6": "apex"}.get(part, part))()
    print(tables.text(suite.found), flush=True)
    if options.publish:
        tables.publish(suite.found)


if __name__ == "__main__":
    main()
