"""The tables of docs/reference/performance.md, made of docs/reference/performance.json: no figure is typed by hand."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs" / "reference"
BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"
SERVERS = {
    "comity": "Comity",
    "comity-pres": "Comity",
    "kamailio": "Kamailio, `t_relay`",
    "kamailio-xmpp": "Kamailio, `xmpp` module",
    "kamailio-xmpp-tcp": "Kamailio, `xmpp` module",
    "kamailio-presmem": "Kamailio, `presence` in memory",
    "kamailio-msilo-one": "Kamailio, `msilo` on SQLite",
    "prosody": "Prosody",
    "ejabberd": "ejabberd",
}
NAMES = {
    "s1 sip-udp xmpp": "SIP/UDP → XMPP",
    "s1 sip-udp xmpp again": "SIP/UDP → XMPP, unanswered requests sent again (timer E)",
    "s1 sip-tcp xmpp": "SIP/TCP → XMPP",
    "s1 xmpp sip-udp": "XMPP → SIP/UDP",
    "s1 xmpp sip-tcp": "XMPP → SIP/TCP",
    "s2 sip-udp sip-udp": "SIP → SIP, UDP",
    "s2 sip-tcp sip-tcp": "SIP → SIP, TCP",
    "s3 xmpp xmpp 2": "XMPP → XMPP, 2 users",
    "s3 xmpp xmpp 20": "XMPP → XMPP, 20 users",
    "s3 xmpp xmpp 200": "XMPP → XMPP, 200 users",
    "s3 xmpp xmpp 128": "XMPP → XMPP",
}
APEX = {
    "s6 sip-tcp xmpp": "SIP/TCP → XMPP",
    "s6 apex xmpp": "APEX → XMPP",
    "s6 xmpp apex": "XMPP → APEX",
    "s6 apex apex": "APEX → APEX",
}
BY = {"sip": "SIP/UDP", "xmpp": "XMPP", "both": "SIP/UDP and XMPP, half each"}
Row = dict
Pick = Callable[[Row], float]


def spread(values: list[float], form: str) -> str:
    """Median (least–most)."""
    if not values:
        return "failed"
    middle, least, most = (format(f(values), form) for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least}–{most})"


def good(runs: list[Row], *kinds: str) -> list[Row]:
    """Repeats in which the rig had no error of its own."""
    return [run for run in runs if not any("error" in run[kind] for kind in kinds)]


def line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*cells: str) -> list[str]:
    return [line(*cells), "|" + "---|" * len(cells)]


def flaws(runs: list[Row]) -> str:
    """Lost, repeated, refused or out of order messages of all repeats together; "none" if there were none."""
    words = {"lost": "lost", "dup": "twice", "rejected": "refused", "out_of_order": "out of order"}
    sums = {word: sum(run[key] for run in runs) for key, word in words.items()}
    said = [f"{count:,} {word}" for word, count in sums.items() if count]
    return f"{', '.join(said)} of {sum(run['sent'] for run in runs):,}" if said else "none"


def messages(rows: list[Row]) -> list[str]:
    """S1 to S3: the first figure is what a message costs."""
    out = head(
        "scenario",
        "server",
        "CPU-s per 1,000 at half load",
        "ratio",
        "CPU-s per 1,000 at the most",
        "messages a second, 64 outstanding",
        "p99 ms at half load",
        "flaws",
    )
    ours: dict[str, float] = {}
    for row in rows:
        runs = good(row["repeats"], "max", "half")
        cost = [run["half"]["server_cpu_s_per_1000"] for run in runs]
        ratio = ""
        if row["server"] == "comity":
            ours[row["scenario"]] = statistics.median(cost) if cost else 0.0
        elif cost and statistics.median(cost) > 0:
            ratio = f"{ours.get(row['scenario'], 0.0) / statistics.median(cost):.1f}"
        out.append(
            line(
                NAMES[row["scenario"]],
                SERVERS[row["server"]],
                spread(cost, ".3f"),
                ratio,
                spread([run["max"]["server_cpu_s_per_1000"] for run in runs], ".3f"),
                spread([run["max"]["throughput"] for run in runs], ",.0f"),
                spread([run["half"]["lat_ms"]["p99"] for run in runs], ".1f"),
                flaws([run[kind] for run in runs for kind in ("max", "half")]),
            )
        )
    return out


def offline(rows: list[Row]) -> list[str]:
    """S2 for absent users."""
    out = head("server", "stored a second", "CPU-s per 1,000", "answer p99 ms", "stored of sent")
    for row in rows:
        runs = [run for run in row["repeats"] if "error" not in run and run["accepted"]]
        out.append(
            line(
                SERVERS[row["server"]],
                spread([run["accepted"] / run["wall_s"] for run in runs], ",.0f"),
                spread([1000 * run["server_cpu_s"] / run["accepted"] for run in runs], ".3f"),
                spread([run["accepted_ms"]["p99"] for run in runs], ".1f"),
                f"{sum(run['accepted'] for run in runs):,} of {sum(run['sent'] for run in runs):,}",
            )
        )
    return out


def presence(rows: list[Row]) -> list[str]:
    """S4: beside each figure of a peer what Comity's is of it."""
    out = head(
        "watchers",
        "server",
        "CPU µs per notification",
        "ratio",
        "ms until the last was told",
        "p99 ms of all",
        "lost of all",
    )
    cost = {
        (row["kind"], row["watchers"], row["server"]): [
            1000 * run["server_cpu_ms_per_notify"] for run in row["repeats"] if "error" not in run
        ]
        for row in rows
    }
    for row in rows:
        runs = [run for run in row["repeats"] if "error" not in run]
        own = cost[row["kind"], row["watchers"], row["server"]]
        ours = cost.get((row["kind"], row["watchers"], "comity-pres"))
        ratio = ""
        if row["server"] != "comity-pres" and own and ours:
            ratio = f"{statistics.median(ours) / statistics.median(own):.1f}"
        out.append(
            line(
                f"{row['watchers']:,} by {BY[row['kind']]}",
                SERVERS[row["server"]],
                spread(own, ".0f"),
                ratio,
                spread([run["last_ms"]["p50"] for run in runs], ".1f"),
                spread([run["each_ms"]["p99"] for run in runs], ".1f"),
                f"{sum(run['lost'] for run in runs):,} of {sum(run['expected'] for run in runs):,}",
            )
        )
    return out


def apex(rows: list[Row]) -> list[str]:
    """S6: everything is compared with SIP over TCP to XMPP, of the same repeat of the same server."""
    out = head(
        "scenario",
        "CPU-s per 1,000 at half load",
        "SIP/TCP → XMPP takes of that",
        "messages a second, 64 outstanding",
        "of SIP/TCP → XMPP",
        "p99 ms at half load",
        "flaws",
    )
    base = rows[0]["repeats"]
    for row in rows:
        both = [
            (run, own)
            for run, own in zip(row["repeats"], base, strict=True)
            if len(good([run, own], "max", "half")) == 2
        ]
        runs = [run for run, _ in both]
        saved = [own["half"]["server_cpu_s_per_1000"] / run["half"]["server_cpu_s_per_1000"] for run, own in both]
        out.append(
            line(
                APEX[row["scenario"]],
                spread([run["half"]["server_cpu_s_per_1000"] for run in runs], ".3f"),
                spread(saved, ".2f"),
                spread([run["max"]["throughput"] for run in runs], ",.0f"),
                spread([run["max"]["throughput"] / own["max"]["throughput"] for run, own in both], ".2f"),
                spread([run["half"]["lat_ms"]["p99"] for run in runs], ".1f"),
                flaws([run[kind] for run in runs for kind in ("max", "half")]),
            )
        )
    return out


def idle(rows: list[Row]) -> list[str]:
    """S5."""
    out = head(
        "server", "users", "kB (PSS) each", "MB (PSS) empty", "processor while idle, % of a core", "sign-ins a second"
    )
    for row in rows:
        runs = [run for run in row["repeats"] if "error" not in run]
        out.append(
            line(
                SERVERS[row["server"]],
                f"{row['users']:,} {row['kind'].upper()}",
                spread([run["pss_kb_per_user"] for run in runs], ".1f"),
                spread([run["pss0_kb"] / 1024 for run in runs], ".0f"),
                spread([run["idle_cpu_pct"] for run in runs], ".2f"),
                spread([run["setup_per_s"] for run in runs], ",.0f"),
            )
        )
    return out


def floors(rows: list[Row]) -> list[str]:
    """The promised rates."""
    out = head("scenario", "offered a second", "delivered a second", "p50 ms", "p99 ms", "flaws")
    for row in rows:
        for kind, rate in (("full", row["floor"]), ("half", row["floor"] // 2)):
            runs = [run[kind] for run in good(row["repeats"], kind)]
            out.append(
                line(
                    NAMES[row["scenario"]],
                    f"{rate:,}",
                    spread([run["throughput"] for run in runs], ",.0f"),
                    spread([run["lat_ms"]["p50"] for run in runs], ".1f"),
                    spread([run["lat_ms"]["p99"] for run in runs], ".1f"),
                    flaws(runs),
                )
            )
    return out


def overload(rows: list[Row]) -> list[str]:
    """LG-12."""
    out = head(
        "scenario",
        "offered a second",
        "delivered a second",
        "of the most",
        "accepted and lost / refused and delivered",
        "refused",
        "p99 ms of accepted",
        "p99 ms at a third afterwards",
    )
    for row in rows:
        runs = good(row["repeats"], "max", "over", "after")
        over = [run["over"] for run in runs]
        is_stream = "udp" not in row["scenario"]
        out.append(
            line(
                NAMES[row["scenario"]],
                spread([run["offered_rate"] for run in over], ",.0f"),
                spread([delivered(run, is_stream) for run in over], ",.0f"),
                spread([100 * delivered(run["over"], is_stream) / run["max"]["throughput"] for run in runs], ".0f")
                + " %",
                f"{sum(lost(run, is_stream) for run in over)} / {sum(run['refused_but_delivered'] for run in over)}",
                "the sender waits"
                if is_stream
                else spread([100 * run["rejected"] / run["sent"] for run in over], ".0f") + " %",
                "" if is_stream else spread([run["lat_ms"]["p99"] for run in over], ",.0f"),
                spread([run["after"]["lat_ms"]["p99"] for run in runs], ".0f"),
            )
        )
    return out


def delivered(run: Row, is_stream: bool) -> float:
    """A second: over a stream until the last has come, since nothing is refused; else while they were sent."""
    return run["throughput"] if is_stream else run["goodput"]


def lost(run: Row, is_stream: bool) -> int:
    """Over a stream every message counts, since the sender was never told no."""
    return run["lost"] if is_stream else run["accepted_not_delivered"]


def signed(rows: list[Row]) -> list[str]:
    """Issue 4: at most 1.1 times an unsigned object of the same size."""
    out = head("scenario", "unsigned, CPU-s per 1,000", "signed, CPU-s per 1,000", "ratio")
    for row in rows:
        name = {"sip": "SIP/TCP", "xmpp": "XMPP"}[row["via"]]
        ratios = [one / other for one, other in zip(row["signed"], row["unsigned"], strict=True)]
        costs = (spread(row[kind], ".3f") for kind in ("unsigned", "signed"))
        out.append(line(f"{name} → XMPP", *costs, spread(ratios, ".2f")))
    return out


def recovered(rows: list[Row]) -> list[str]:
    """LG-6 and LG-14, in a sentence each."""
    out = []
    for row in rows:
        stored, fetched = row["stored"], row["fetched"]
        out += [
            f"{stored['accepted']:,} messages for absent users were stored at {stored['accepted'] / stored['wall_s']:,.0f} a "
            f"second. After kill -9 the server answered again within {spread(row['accepting_s'], '.1f')} s of its start. "
            f"Then {fetched['delivered']:,} were delivered at {fetched['per_second']:,.0f} a second, the first "
            f"{fetched['first_after_sign_in_s']:.1f} s after the users began to sign in: {fetched['lost']} lost, "
            f"{fetched['twice']} twice, {fetched['out_of_order']} out of order.",
        ]
    return out


def text(found: Row) -> str:
    """Everything between the markers."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    pairs = [(row["server"], pair) for row in found["rows"] for pair in row["repeats"]]
    runs = [(server, run) for server, pair in pairs for run in pair.values() if "error" not in run]
    parts = [
        f"{machine['when']}, commit {machine['commit']}: `{machine['command']}`. {machine['cpu']}, {machine['cores_of_machine']} "
        f"cores, of which server and rig together had {len(machine['cores'])}; Linux {machine['kernel']}, Python "
        f"{machine['python']}; {versions}. Median (least–most) of the repeats; 64-octet bodies, TLS off, everything on "
        "loopback.",
    ]
    if runs:
        foreign = spread([run["foreign_cores"] for _, run in runs], ".2f")
        waited = spread([100 * run["server_waited"] for server, run in runs if server == "comity"], ".0f")
        parts += [
            "",
            f"While the first table was measured, other programs used {foreign} cores of the machine, and Comity waited "
            f"{waited} % of the time of a core for them.",
        ]
    sections = {
        "rows": ("What a message costs", messages),
        "offline": ("Stored for absent users", offline),
        "floors": ("Floors, 64 conversations", floors),
        "overload": ("Three times what it can carry, 64 conversations", overload),
        "signed": ("Objects of 4 KiB, TLS on the XMPP side", signed),
        "presence": ("One presentity and its watchers", presence),
        "apex": ("APEX beside SIP", apex),
        "idle": ("Users who do nothing", idle),
        "recovery": ("Recovery", recovered),
    }
    for key, (title, make) in sections.items():
        if found.get(key):
            parts += ["", f"## {title}", ""]
            if f"{key}_machine" in found:
                where = found[f"{key}_machine"]
                parts += [f"{where['when']}, commit {where['commit']}: `{where['command']}`.", ""]
            parts += make(found[key])
    return "\n".join(parts) + "\n"


def publish(found: Row) -> None:
    """Make a run the published one; what it did not measure stays as it was."""
    path = DOCS / "performance.json"
    before = json.loads(path.read_text())
    is_whole = bool(found["rows"])
    found = {key: found.get(key) or before[key] if key in before else found[key] for key in before | found}
    if not is_whole:
        found["machine"] = before["machine"]
    (DOCS / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
    write()


def page(found: Row, before: str) -> str:
    """The page with its tables made anew."""
    start, rest = before.split(BEGIN)
    return start + BEGIN + "\n" + text(found) + "\n" + END + rest.split(END)[1]


def write() -> None:
    """Write the tables of the published run."""
    path = DOCS / "performance.md"
    path.write_text(page(json.loads((DOCS / "performance.json").read_text()), path.read_text()))
