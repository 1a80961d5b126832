"""A profile over a link that is cut ten times at random moments: which rounds are lost, and which are measured again.

The command of the link is killed at random moments while a small network is profiled. Every round that the journal held
before a cut has to be in the profile as it was, and none may be there twice.
Usage: python benchmarks/cuts.py [COMMAND] [CUTS] [SECONDS], on average so many seconds between two cuts; COMMAND such
as "/tmp/arm/armpy -", made by .ci/setup-emulated /tmp/arm
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from report import report

from fn3hw.deploy import export
from fn3hw.profiler import Session, connect, profile
from fn3hw.space import nest
from fn3hw.space.networks import build

SUBNETS = 8
SHAPE = (1, 8, 8)


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else "local"
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    every_s = float(sys.argv[3]) if len(sys.argv) > 3 else 5.0
    torch.manual_seed(0)
    module = build("mobilenet_small", n_classes=10, input_shape=SHAPE).eval()
    supernet = export(nest(module, torch.zeros(1, *SHAPE), ("channel", "layer"), keep={"channel": 0.25}))
    with tempfile.TemporaryDirectory() as folder, connect(command) as session:
        journal = Path(folder) / "journal"
        cuts = Cuts(session, journal, wanted, every_s)
        thread = threading.Thread(target=cuts.run, daemon=True)
        thread.start()
        started = time.monotonic()
        measured = profile(supernet, session, SUBNETS, journal=journal)
        seconds = time.monotonic() - started
        cuts.stop.set()
        thread.join()
        kept = rounds(journal)
    in_profile = [(m.subnet, one.number) for m in measured.measurements for one in m.rounds]
    lost = [key for seen in cuts.seen for key, line in seen.items() if kept.get(key) != line]
    report(
        "cuts-emulated" if measured.device["emulated"] else "cuts",
        {
            "device": {name: measured.device[name] for name in ("machine", "emulated")},
            "cuts": len(cuts.seen),
            "rounds_in_the_profile": len(in_profile),
            "rounds_twice": len(in_profile) - len(set(in_profile)),
            "finished_rounds_before_each_cut": [len(seen) for seen in cuts.seen],
            "finished_rounds_lost": len(lost),
            "seconds": seconds,
        },
    )


class Cuts:
    """Kills a session's link at random moments, and notes which rounds were finished then.

    Args:
        session: whose link is cut.
        journal: where finished rounds are.
        wanted: how many cuts.
        every_s: mean time between them.
    """

    def __init__(self, session: Session, journal: Path, wanted: int, every_s: float) -> None:
        self.seen: list[dict[tuple[str, int], str]] = []
        self.stop = threading.Event()
        self._session, self._journal, self._wanted, self._every_s = session, journal, wanted, every_s

    def run(self) -> None:
        """Cut, as often as wanted."""
        chance = random.Random(0)
        while len(self.seen) < self._wanted and not self.stop.wait(chance.expovariate(1 / self._every_s)):
            process = self._session._link._process
            if process.poll() is None:
                self.seen.append(rounds(self._journal))
                process.kill()


def rounds(journal: Path) -> dict[tuple[str, int], str]:
    """The finished rounds of a journal: the whole line by subnet and number."""
    if not journal.exists():
        return {}
    found = {}
    *lines, _unfinished = journal.read_text().split("\n")
    for line in lines:
        entry = json.loads(line)
        if entry.get("kind") == "round":
            found[entry["subnet"], entry["number"]] = line
    return found


if __name__ == "__main__":
    main()
