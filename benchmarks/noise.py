"""How well the profiler repeats: the same subnets of MobileNetV2 profiled twice, with a competing load in the second.

Between the two lies half an hour. Beside each profile the same files are timed by a plain loop: 10 runs to warm up,
then the median of 50. What is compared is a subnet's latency, relative to the full network's, in the first and in the
second measurement; and the latency in milliseconds, which a plain loop would report.
Usage: python benchmarks/noise.py [SUBNETS] [MINUTES_BETWEEN]; both profiles are kept in runs/noise
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from cost_model import tell, torchvision_supernet
from report import report

from fn3hw.deploy import Supernet
from fn3hw.profiler import Profile, plan, profile
from fn3hw.space.subnet import Subnet

FOLDER = Path("runs/noise")
LOOP = 50
WARM_UP = 10


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    FOLDER.mkdir(parents=True, exist_ok=True)
    supernet = torchvision_supernet("mobilenet_v2")
    subnets = plan(supernet.space, count)
    first = both(supernet, subnets, "first")
    time.sleep(60 * minutes)
    with load():
        second = both(supernet, subnets, "second")
    full = subnets[0].id
    report(
        "noise",
        {
            "network": "torchvision mobilenet_v2, 224x224, level channel",
            "subnets": count,
            "minutes_between": minutes,
            "load_in_the_second": "a process that multiplies matrices of 512x512 in one thread",
            "difference_pct": {
                "fn3hw, relative to the full network": differences(first["profile"], second["profile"], full),
                "plain loop, relative to the full network": differences(first["loop"], second["loop"], full),
                "plain loop, milliseconds": differences(first["loop"], second["loop"], None),
            },
            "verdicts": [first["verdict"], second["verdict"]],
            "seconds": {
                "fn3hw": [first["seconds"], second["seconds"]],
                "plain loop": [first["loop_seconds"], second["loop_seconds"]],
            },
        },
    )


def both(supernet: Supernet, subnets: Sequence[Subnet], name: str) -> dict[str, Any]:
    """Latencies by the profiler and by a plain loop."""
    started = time.monotonic()
    measured = profile(
        supernet, "local", subnets=subnets, name="mobilenet_v2", journal=FOLDER / f"{name}.journal", progress=tell
    )
    measured.write(FOLDER / f"{name}.json")
    (FOLDER / f"{name}.journal").unlink()
    between = time.monotonic()
    return {
        "profile": ratios(measured),
        "verdict": measured.verdict,
        "loop": {subnet.id: loop_ms(supernet, subnet) for subnet in subnets},
        "seconds": round(between - started),
        "loop_seconds": round(time.monotonic() - between),
    }


def ratios(measured: Profile) -> dict[str, float]:
    """Latency of each subnet, relative to the full network's."""
    return {m.subnet: m.ratio for m in measured.measurements}


def loop_ms(supernet: Supernet, subnet: Subnet) -> float:
    """Median of a plain loop, as one would write it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(supernet.slice(subnet).SerializeToString(), options)
    inputs = {session.get_inputs()[0].name: np.zeros((1, *supernet.input_shape), np.float32)}
    samples = []
    for _ in range(WARM_UP + LOOP):
        start = time.perf_counter()
        session.run(None, inputs)
        samples.append(time.perf_counter() - start)
    return 1e3 * float(np.median(samples[WARM_UP:]))


def differences(first: dict[str, float], second: dict[str, float], full: str | None) -> dict[str, float]:
    """Median, mean and largest absolute difference in percent, after dividing by that of the full network."""
    found = []
    for subnet in first.keys() - {full}:
        a, b = (side[subnet] / (side[full] if full else 1.0) for side in (first, second))
        found.append(100 * abs(b / a - 1))
    return {"median": float(np.median(found)), "mean": float(np.mean(found)), "largest": float(np.max(found))}


@contextmanager
def load() -> Iterator[None]:
    """Another program that computes, meanwhile."""
    process = multiprocessing.get_context("spawn").Process(target=busy, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()


def busy() -> None:
    """Multiply matrices."""
    matrix = np.random.default_rng(0).normal(size=(512, 512))
    while True:
        matrix = matrix @ matrix
        matrix /= np.abs(matrix).max()


if __name__ == "__main__":
    main()
