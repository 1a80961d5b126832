"""Runs ``fn3hw quickstart`` in an empty folder and reports its time and its result."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import report


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command = ["fn3hw", "quickstart", "--output", str(Path(folder) / "run"), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.returncode)
    result = json.loads(done.stdout)
    report(
        "quickstart",
        {
            "seconds": seconds,
            "latency_share": result["latency_share"],
            "test_accuracy": result["test_accuracy"],
            "full_test_accuracy": result["full_test_accuracy"],
            "points_lost": result["full_test_accuracy"] - result["test_accuracy"],
            "verdict": result["verdict"],
        },
    )


if __name__ == "__main__":
    main()
