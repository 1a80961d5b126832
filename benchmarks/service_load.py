"""A server under load: lookups in an atlas of 10,000 points, with and without watchers, and its memory meanwhile.

A server is started in a process of its own on an embedded database with made-up rows; wrk asks it for lookups under
random budgets over keep-alive connections, on the same machine. Watchers hold server-sent events of an open job.
Usage: python benchmarks/service_load.py [SECONDS] [CONNECTIONS] [WATCHERS]; needs wrk (apt-get install wrk)
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from report import PACKAGES, SERVICE, report
from servers import fill, free_port, memory_mib, serving

from fn3hw.service import tokens
from fn3hw.service.database import Database
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage

POINTS = 10_000
SCRIPT = """
math.randomseed({seed})
request = function()
  return wrk.format("GET", string.format("/v1/atlases/search-1/lookup?latency_ms=%.4f", 1.2 + 3.8 * math.random()),
                    {{["Authorization"] = "Bearer {token}"}})
end
"""


def main() -> None:
    seconds, connections, watchers = (int(one) for one in (sys.argv[1:] + ["30", "16", "200"][len(sys.argv[1:]) :]))
    with tempfile.TemporaryDirectory(prefix="fn3hw-load-") as folder:
        settings = Settings(data=Path(folder))
        database = Database(settings.database_url)
        storage = Storage(settings.storage_url, Path(folder) / "incoming")
        fill(database, storage, points=POINTS)
        token = tokens.create(database, "load", "admin")
        database.close()
        with serving(Path(folder), free_port(), "--no-worker", "--requests-per-s", "0") as server:
            headers = {"Authorization": f"Bearer {token}"}
            httpx.get(f"{server.url}/v1/atlases/search-1/lookup?latency_ms=3", headers=headers).raise_for_status()
            before = memory_mib(server.pid)
            alone = asked(server.url, token, min(seconds, 60), connections)
            with watching(server.url, headers, watchers) as seen:
                memory = [memory_mib(server.pid)]
                stop = threading.Event()
                thread = threading.Thread(target=watch_memory, args=(server.pid, memory, stop))
                thread.start()
                beside = asked(server.url, token, seconds, connections)
                stop.set()
                thread.join()
                held = len(seen)
        report(
            "service_load",
            {
                "points": POINTS,
                "connections": connections,
                "lookups": alone,
                "lookups_beside_watchers": {**beside, "watchers": held},
                "memory_mib": {
                    "before": before,
                    "first_tenth": max(memory[: max(1, len(memory) // 10)]),
                    "last_tenth": max(memory[-max(1, len(memory) // 10) :]),
                    "largest": max(memory),
                },
            },
            packages=(*PACKAGES, *SERVICE),
        )


def asked(url: str, token: str, seconds: int, connections: int) -> dict[str, Any]:
    """What wrk says: requests a second, latencies in ms, and answers that were no success."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.format(token=token, seed=os.getpid()))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, url]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {
        "seconds": seconds,
        "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        **{f"p{p}_ms": milliseconds(re.search(rf"\s{p}%\s+([\d.]+)(\w+)", text)) for p in (50, 90, 99)},
        "failed": int(failed[1]) if failed else 0,
    }


def milliseconds(found: Any) -> float:
    """A duration as wrk writes it."""
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


class watching:
    """So many watchers of an open job, for as long as it is needed; those that had an event so far."""

    def __init__(self, url: str, headers: dict[str, str], n: int) -> None:
        self._url, self._headers, self._n = url, headers, n
        self._seen: set[int] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._all(),))

    def __enter__(self) -> set[int]:
        self._stop = asyncio.Event()
        self._thread.start()
        end = time.monotonic() + 30
        while len(self._seen) < self._n and time.monotonic() < end:
            time.sleep(0.1)
        return self._seen

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _all(self) -> None:
        limits = httpx.Limits(max_connections=self._n)
        async with httpx.AsyncClient(headers=self._headers, timeout=None, limits=limits) as client:
            tasks = [asyncio.create_task(self._one(client, number)) for number in range(self._n)]
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        async with client.stream("GET", f"{self._url}/v1/jobs/check-running/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    self._seen.add(number)


def watch_memory(pid: int, memory: list[float], stop: threading.Event) -> None:
    """Note the memory of a process every second."""
    while not stop.wait(1.0):
        memory.append(memory_mib(pid))


if __name__ == "__main__":
    main()
