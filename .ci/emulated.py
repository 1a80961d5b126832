"""The agent on an emulated aarch64, by the path that ssh uses.

Run it as `python .ci/emulated.py FOLDER`, with what `.ci/setup-emulated FOLDER` made. A tiny network is trained,
profiled, searched, looked up, exported and verified there, all through the command line; nothing that is said or
written may give an emulated time as latency.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from fn3hw.cli.main import run as command_line

TINY = (
    *("--set", "network.options={stem=8, stages=[[8,2,2],[12,2,1]], expand=2, head=16}"),
    *("--set", "epochs=1", "--set", "warm_up=0.0"),
)


def say(*arguments: object, status: int = 0) -> str:
    """What a verb prints; it has to end with ``status``."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        found = command_line([str(argument) for argument in arguments])
    assert found == status, f"fn3hw {' '.join(map(str, arguments))} ended with {found}, not {status}: {out.getvalue()}"
    return out.getvalue()


def call(*arguments: object, status: int = 0) -> dict[str, Any]:
    """The JSON document of a verb, in which no latency is given."""
    document: dict[str, Any] = json.loads(say(*arguments, "--json", status=status))
    assert list(latencies(document)) == [], document
    return document


def latencies(document: Any) -> Iterator[float]:
    """All latencies that a document gives."""
    if isinstance(document, list):
        for part in document:
            yield from latencies(part)
    elif isinstance(document, dict):
        for name, part in document.items():
            if "latency" in name and part is not None:
                yield part
            yield from latencies(part)


def check(folder: Path, run: Path, interpreter: str, sizes: tuple[int, int]) -> None:
    """The whole path on one emulated interpreter."""
    device, output, counts = f"{folder / interpreter} -", run / f"{interpreter}.json", interpreter == "armpy-counting"
    model = run / f"{interpreter}.onnx"
    asked = ("--subnets", sizes[0], "--holdout", sizes[1], "--allow-noisy")
    profiled = call("profile", run, "--device", device, *asked, "--output", output)
    assert profiled["emulated"] and profiled["device"]["machine"] == "aarch64" and profiled["device"]["emulated"]
    assert profiled["n_measured"] == sizes[0]
    assert bool(profiled["reference_instructions"]) == counts

    of = (run, "--profile", output)
    points = call("search", *of, "--evaluations", 8, "--images", 60)["points"]
    assert points and all(0 < point["relative_cost"] < 1.5 and point["emulated"] for point in points)
    (atlas,) = (path for path in run.glob("atlas-*.json") if json.loads(path.read_text())["points"] == points)
    for file in (output, atlas):
        assert list(latencies(json.loads(file.read_text()))) == [], file

    refused = call("lookup", *of, "--latency-ms", 5, status=2)["error"]
    assert "emulated" in refused["message"] and "--relative-cost" in refused["hint"]
    smallest = call("lookup", *of, "--relative-cost", 1e-3, status=3)["error"]
    assert smallest["limit"] == "relative_cost" and smallest["best"] > 1e-3
    text = say("lookup", *of, "--relative-cost", 2)
    assert "of the full network's" in text and not re.search(r"\d ms\b", text), text

    # Counts repeat on any machine; a verdict on the emulator's time would depend on what else runs on this one.
    limit = ("--relative-cost", 1.1 * smallest["best"], "--verify-on", device if counts else "none")
    exported = call("export", *of, *limit, "--output", model)
    assert exported["budget_met"] and exported["emulated"] and exported["max_abs_diff"] < 1e-3
    assert not counts or 0 < exported["measured_relative_cost"] <= 1.1 * smallest["best"]
    onnx.checker.check_model(onnx.load(model))
    print(f"{interpreter}: {len(points)} points, exported", exported["relative_cost"], file=sys.stderr)


def main(folder: Path) -> None:
    """Check the interpreter that counts instructions; one that does not where QEMU is too new for that (QEMU 9)."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        say("train", "--recipe", "digits", "--output", run, *TINY)
        counts = (folder / "armpy-counting").exists()
        check(folder, run, *(("armpy-counting", (4, 2)) if counts else ("armpy", (4, 0))))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
