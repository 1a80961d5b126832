"""Whether a measurement beside a loaded server is as good as one beside a server that is idle.

Profiles of a small run are measured by a server's own worker, in turn while nobody asks for anything and while wrk asks
for lookups as fast as it gets answers; noise is what two rounds of one subnet differ by, as profiles say it.
Usage: python benchmarks/service_noise.py RUN [PROFILES] [SUBNETS] [CONNECTIONS]; needs wrk (apt-get install wrk)
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from report import PACKAGES, SERVICE, report
from servers import fill, free_port, serving
from service_load import POINTS, asked

from fn3hw.client import Client
from fn3hw.service import tokens
from fn3hw.service.database import Database
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage


def main() -> None:
    given = sys.argv[2:5]
    profiles, subnets, connections = (int(one) for one in (given + ["3", "8", "2"][len(given) :]))
    with tempfile.TemporaryDirectory(prefix="fn3hw-noise-") as folder:
        settings = Settings(data=Path(folder))
        database = Database(settings.database_url)
        fill(database, Storage(settings.storage_url, Path(folder) / "incoming"), points=POINTS)
        token = tokens.create(database, "noise", "admin")
        database.close()
        with serving(Path(folder), free_port(), "--requests-per-s", "0") as server:
            client = Client(server.url, token)
            run = client.push(sys.argv[1], "measured")
            found: dict[str, list[dict[str, Any]]] = {"idle": [], "loaded": []}
            for number in range(profiles):
                for name in found:
                    with loading(server.url, token, connections if name == "loaded" else 0) as rates:
                        options: Any = {"subnets": subnets, "holdout": 0, "seed": number, "allow_noisy": True}
                        made = client.profile(run, repeat=2 * number + (name == "loaded"), **options)
                    noise = made.summary["noise"]["repeat_mape"]
                    found[name].append({"repeat_mape": noise, "verdict": made.verdict, "requests_per_s": rates})
                    print(name, found[name][-1], file=sys.stderr, flush=True)
        means = {name: float(np.mean([one["repeat_mape"] for one in each])) for name, each in found.items()}
        figures = {"subnets": subnets, "mean": means, "ratio": means["loaded"] / means["idle"], **found}
        report("service_noise", figures, packages=(*PACKAGES, *SERVICE))


class loading:
    """Lookups as fast as they are answered, over so many connections, for as long as it is needed."""

    def __init__(self, url: str, token: str, connections: int) -> None:
        self._arguments, self._connections = (url, token), connections
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.rates: list[float] = []

    def __enter__(self) -> list[float]:
        if self._connections:
            self._thread.start()
        return self.rates

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._connections:
            self._thread.join()

    def _ask(self) -> None:
        while not self._ended.is_set():
            self.rates.append(asked(*self._arguments, 5, self._connections)["requests_per_s"])


if __name__ == "__main__":
    main()
