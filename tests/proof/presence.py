"""Presence under kills: who watches, who revokes, who leaves, and a server that dies between; writes a history for I9.

    python -m tests.proof.presence [--rounds N] [--seed S] [--program MODULE]

Two presentities, one by SIP and one by XMPP, each with an XMPP device to decide with; for each a watcher by SIP over UDP, whose
dialogs outlive the server, and one by XMPP. One thing happens after the other, so that "after" in the history is after.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.paths.presence_people import House, Notice, Person, SipPerson, XmppPerson
from tests.proof import checker
from tests.proof.history import History, read
from tests.proof.ledger import Ledger

LIMITS = 'presence_interval = 0.001\nuser_publication_burst = 100000\nuser_publications = 1000\nconnections_per_address = 1000\nsm_resume = "5 s"'
STALE_S = 60
Place = Literal["watching", "revoked", "left"]


@dataclass(slots=True)
class Watch:
    """One watcher of one presentity, and where they stand."""

    watcher: Person
    place: Place = "left"
    taken: int = 0
    """How much of what the watcher heard is in the history."""
    shown: str = ""


@dataclass(slots=True)
class Presentity:
    """One account: a device that says how it is, one that decides, and its watchers."""

    speaker: Person
    decider: XmppPerson
    watches: list[Watch] = field(default_factory=list)
    said: int = 0

    @property
    def name(self) -> str:
        return self.decider.name


class Play:
    """All of it, against one house."""

    def __init__(self, house: House, history: History, seed: int) -> None:
        self._house = house
        self._history = history
        self._random = random.Random(seed)
        self._presentities: list[Presentity] = []
        for via in ("sip", "xmpp"):
            name = house.account("seen")
            decider = XmppPerson(house, name)
            decider.tell("open")
            speaker = decider if via == "xmpp" else SipPerson(house, name)
            watchers: list[Person] = [SipPerson(house, house.account("phone"), "udp")]
            watchers.append(XmppPerson(house, house.account("desk")))
            self._presentities.append(Presentity(speaker, decider, [Watch(watcher) for watcher in watchers]))
        for presentity in self._presentities:
            for watch in presentity.watches:
                self.begin(presentity, watch)

    def act(self, rounds: int, kills: int) -> None:
        """Rounds of one thing each, with kills spread among them."""
        deaths = set(self._random.sample(range(1, rounds), kills))
        for number in range(rounds):
            if number in deaths:
                self.kill()
            presentity = self._random.choice(self._presentities)
            watch = self._random.choice(presentity.watches)
            choice = self._random.random()
            if choice < 0.5:
                self.say(presentity)
            elif watch.place != "watching":
                self.begin(presentity, watch)
            elif choice < 0.8:
                self.revoke(presentity, watch)
            else:
                self.leave(presentity, watch)
            self.say(presentity)
            self.look()
        self.kill()
        self.look()

    # --- what happens

    def say(self, presentity: Presentity) -> None:
        """A numbered change."""
        presentity.said += 1
        self._history.add("say", f"{presentity.name}/{presentity.speaker.via}", k=presentity.said, level="open")
        presentity.speaker.tell(self._random.choice(("open", "away", "dnd")), f"#{presentity.said}")
        presentity.speaker.heard_until_now()

    def begin(self, presentity: Presentity, watch: Watch) -> None:
        """Allowed, and asked for."""
        with self._two("allow", presentity, watch):
            presentity.decider.answer(watch.watcher.name, granted=True)
        watch.watcher.watch(presentity.name)
        watch.place = "watching"

    def revoke(self, presentity: Presentity, watch: Watch) -> None:
        """Taken back by the presentity."""
        with self._two("revoke", presentity, watch):
            presentity.decider.answer(watch.watcher.name, granted=False)
        watch.place, watch.shown = "revoked", ""

    def leave(self, presentity: Presentity, watch: Watch) -> None:
        """Ended by the watcher."""
        with self._two("leave", presentity, watch):
            watch.watcher.leave(presentity.name)
        watch.place, watch.shown = "left", ""

    def kill(self) -> None:
        """Dead and back; devices on streams sign in again, and those who were seen before are closed until they speak."""
        self._house.kill()
        self._history.mark("died")
        self._house.start()
        self._history.mark("ready")
        phones = list(self._waiting_phones())
        for presentity, watch in phones:
            phone = watch.watcher
            assert isinstance(phone, SipPerson)
            phone.agent.datagrams.sock.settimeout(STALE_S)
            while watch.shown != "closed":
                try:
                    phone.listen()
                except TimeoutError:
                    break  # the checker says what that means
                self._take(presentity, watch)
            phone.agent.datagrams.sock.settimeout(30)
        for presentity in self._presentities:
            self._sign_in_again(presentity)

    def _waiting_phones(self) -> Iterator[tuple[Presentity, Watch]]:
        for presentity in self._presentities:
            for watch in presentity.watches:
                if isinstance(watch.watcher, SipPerson) and watch.place == "watching" and watch.shown == "open":
                    yield presentity, watch

    def _sign_in_again(self, presentity: Presentity) -> None:
        presentity.decider.close()
        presentity.decider = XmppPerson(self._house, presentity.name)
        presentity.decider.tell("open")
        if isinstance(presentity.speaker, XmppPerson):
            presentity.speaker = presentity.decider
        else:
            presentity.speaker.close()
            presentity.speaker = SipPerson(self._house, presentity.name)
        for watch in presentity.watches:
            if isinstance(watch.watcher, XmppPerson):
                name = watch.watcher.name
                watch.watcher.close()
                watch.watcher, watch.taken = XmppPerson(self._house, name), 0
                watch.watcher.tell("open")

    def look(self) -> None:
        """Everybody hears what there is."""
        for presentity in self._presentities:
            for watch in presentity.watches:
                watch.watcher.heard_until_now()
                self._take(presentity, watch)

    def _take(self, presentity: Presentity, watch: Watch) -> None:
        """Write down what the watcher heard since."""
        for notice in watch.watcher.heard[watch.taken :]:
            if notice.who == presentity.name and notice.state in ("open", "away", "dnd", "closed"):
                self._noticed(presentity, watch, notice)
        watch.taken = len(watch.watcher.heard)

    def _noticed(self, presentity: Presentity, watch: Watch, notice: Notice) -> None:
        number = re.match(r"#(\d+)$", notice.note)
        watch.shown = "closed" if notice.state == "closed" else "open"
        edge = "sip/udp" if isinstance(watch.watcher, SipPerson) else "xmpp/tcp"
        self._history.add(
            "notice",
            f"{watch.watcher.name}/{watch.watcher.via}",
            edge=edge,
            conv=f"{presentity.name}>{watch.watcher.name}",
            k=int(number[1]) if number else -1,
            level=watch.shown,
        )

    def _two(self, op: Literal["allow", "revoke", "leave"], presentity: Presentity, watch: Watch) -> _Act:
        return _Act(self._history, op, presentity.name, watch.watcher.name)

    def close(self) -> None:
        """Everybody goes."""
        for presentity in self._presentities:
            for person in (presentity.speaker, presentity.decider, *(watch.watcher for watch in presentity.watches)):
                person.close()


class _Act:
    """Asked for and acknowledged, around what asks for it."""

    def __init__(
        self, history: History, op: Literal["allow", "revoke", "leave"], presentity: str, watcher: str
    ) -> None:
        self._history, self._op = history, op
        self._who, self._pair = watcher if op == "leave" else presentity, f"{presentity}>{watcher}"

    def __enter__(self) -> None:
        self._history.add(self._op, self._who, conv=self._pair, level="asked")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._history.add(self._op, self._who, conv=self._pair, level="done")


def run(directory: Path, seed: int, *, rounds: int, kills: int, program: str = "comity") -> checker.Verdict:
    """One run; what the checker says of its history, which stays in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "history.jsonl"
    house = House(directory, LIMITS)
    house.program = program
    with house, History(path) as history:
        house.start()
        history.mark("begin", f"stale_s={STALE_S}")
        history.mark("ready")
        play = Play(house, history, seed)
        try:
            play.act(rounds, kills)
        finally:
            play.close()
            history.mark("quiet")
    return checker.check(Ledger(read(path)), [house.log])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.presence", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--program", default="comity", help="the module to run in place of the real one")
    options = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="comity-presence-"))
    print(f"seed {options.seed}, {directory}")
    found = run(directory, options.seed, rounds=options.rounds, kills=options.kills, program=options.program)
    print(checker.as_text(found))
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
