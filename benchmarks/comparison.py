"""All methods on one run, at several numbers of evaluations, and what each needs to reach what ours has at the fewest.

`fn3hw compare` with all methods, once per number of evaluations; what a method needs is looked up in its plays with
the most of them. Hypervolume is the mean accuracy over all latencies on the images that the searches saw, unseen
that of what would be chosen, on test images, and chosen the mean accuracy at ten budgets there.
Usage: python benchmarks/comparison.py RUN PROFILE [IMAGES] [SEEDS] [EVALUATIONS ...]; goes on with RUN/compare-NUMBER
"""

from __future__ import annotations

import json
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
from report import report

from fn3hw.baselines.compare import Play
from fn3hw.baselines.compare.contest import ARCHIVE
from fn3hw.baselines.compare.scoring import Range

FINAL_IMAGES = 2000


def main() -> None:
    run, profile = Path(sys.argv[1]), sys.argv[2]
    images, seeds = (sys.argv[3:5] + ["500", "5"][len(sys.argv[3:5]) :])[:2]
    numbers = sorted(int(one) for one in sys.argv[5:]) or [300, 1000]
    found = {}
    for number in numbers:
        shared(run, numbers[: numbers.index(number)], number)
        found[number] = compared(run, profile, images, seeds, number)
    fewest, most = numbers[0], numbers[-1]
    ours = found[fewest]["methods"][0]
    report(
        f"comparison-{run.name}",
        {
            "images": int(images),
            "final_images": FINAL_IMAGES,
            "seeds": int(seeds),
            "seconds": {str(number): found[number]["seconds"] for number in numbers},
            "methods": {str(number): [summary(one) for one in found[number]["methods"]] for number in numbers},
            f"needed_to_reach_{ours['name']}_at_{fewest}": needed(
                run / f"compare-{most}" / "plays", found[most], ours["hypervolume_mean"]
            ),
        },
    )


def shared(run: Path, before: list[int], number: int) -> None:
    """Let a comparison begin with what those before it evaluated: many methods begin alike, however far they go."""
    target = run / f"compare-{number}" / ARCHIVE
    if before and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((run / f"compare-{before[-1]}" / ARCHIVE).read_bytes())


def compared(run: Path, profile: str, images: str, seeds: str, evaluations: int) -> dict[str, Any]:
    """The document of one comparison."""
    command = [sys.executable, "-m", "fn3hw", "compare", str(run), "--profile", profile, "--json"]
    command += ["--evaluations", str(evaluations), "--images", images, "--final-images", str(FINAL_IMAGES)]
    command += ["--seeds", seeds, "--output", str(run / f"compare-{evaluations}")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def summary(one: dict[str, Any]) -> dict[str, Any]:
    """What is quoted of a method."""
    keys = ("name", "evaluations", "seconds", "thinking_share", "failed", "hypervolume_mean", "hypervolume_ci")
    return {
        **{key: one[key] for key in keys},
        "difference": one["difference_to_the_first"],
        "unseen": one["hypervolume_on_unseen_images"],
        "chosen": one["chosen_accuracy"],
        "accuracy_at_budget": {budget: at["mean"] for budget, at in one["accuracy_at_budget"].items()},
    }


def needed(plays: Path, document: dict[str, Any], wanted: float) -> dict[str, Any]:
    """Median evaluations and seconds of each method until a hypervolume; None where the median play never has it."""
    known = document["hypervolume"]
    span = Range(full=known["full_cost"], smallest=known["smallest_cost"], floor=known["floor"])
    reached: dict[str, Any] = {}
    for name in (method["name"] for method in document["methods"]):
        found = [first_to_reach(Play.read(path), wanted, span) for path in sorted(plays.glob(f"{name}-[0-9]*.csv"))]
        evaluations, seconds = np.median(found, axis=0)
        reached[name] = {"evaluations": evaluations, "seconds": seconds} if np.isfinite(evaluations) else None
    return reached


def first_to_reach(play: Play, wanted: float, span: Range) -> tuple[float, float]:
    """Evaluations and seconds until a hypervolume, infinite where it is not reached; it never falls."""
    n = len(play.subnets)
    k = 1 + bisect_left(range(1, n + 1), wanted, key=lambda k: span.hypervolume(play.cost[:k], play.accuracy[:k]))
    return (float(k), float(play.seconds[k - 1])) if k <= n else (float("inf"), float("inf"))


if __name__ == "__main__":
    main()
