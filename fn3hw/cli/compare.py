"""``fn3hw compare``: other ways to search, on the same network, costs, evaluator and number of evaluations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fn3hw.cli import remote
from fn3hw.cli.connecting import refuse
from fn3hw.cli.console import Console
from fn3hw.cli.options import Address, AsJson, ExecutorName, ProfileFile, RunFolder, Server
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.errors import InputError
from fn3hw.searcher import Charge, open_executor
from fn3hw.searcher.searching import evaluator_of

BUDGETS = 10
FIRST = "fn3hw"


def compare(
    run: RunFolder,
    profile: ProfileFile,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A method; may be repeated. By default all that there are.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Plays of every method.")] = 5,
    evaluations: Annotated[int, typer.Option(min=2, help="Subnets that a play may evaluate.")] = 300,
    latency_ms: Annotated[
        list[float] | None,
        typer.Option("--latency-ms", help="A budget; may be repeated. By default 10."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images per evaluation, of the search split.")] = 1000,
    final_images: Annotated[
        int | None, typer.Option(min=1, help="Test images that chosen subnets are verified on; by default all.")
    ] = None,
    executor: ExecutorName = "local",
    address: Address = None,
    output: Annotated[Path | None, typer.Option(help="Folder for plays and report; by default RUN/compare.")] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Compare ways to search. Interrupted, run again, it goes on; what was evaluated is never evaluated again."""
    if server is not None:
        refuse({"--executor": executor != "local", "--address": address})
        return remote.compare(
            server, Console(as_json=as_json), run, profile, output,
            methods=tuple(method or ()), seeds=seeds, evaluations=evaluations, latency_ms=tuple(latency_ms or ()),
            images=images, final_images=final_images,
        )  # fmt: skip
    try:
        from fn3hw.baselines.compare import Contest, Rules, methods_of, score, write_report
        from fn3hw.baselines.compare.report import by_hypervolume
        from fn3hw.baselines.compare.scoring import Range, to_verify
    except ModuleNotFoundError as error:
        raise InputError(
            f"A comparison needs {error.name}, which is not installed.", hint="pip install 'fn3hw[baselines]'"
        ) from error
    console, started = Console(as_json=as_json), time.monotonic()
    opened = OpenRun(run, console)
    measured = opened.profile(profile)
    supernet = opened.supernet.with_blockwise(measured.blockwise)
    charge = Charge(supernet.space, fit_cost(measured), "latency")
    rules = Rules(
        methods=methods_of(method, first=FIRST),
        seeds=tuple(range(seeds)),
        budgets=tuple(latency_ms) if latency_ms else usual_budgets(charge),
        evaluations=evaluations,
    )
    evaluator = evaluator_of(supernet, opened.moments, opened.data, "search", images, integers=False)
    folder = output or run / "compare"
    # One evaluation at a time, on all cores: what it takes must not depend on how many a method asks for at once.
    with open_executor(executor, address, workers=1) as runner, console.progress("comparing") as ticker:
        contest = Contest(rules, charge, evaluator, folder, executor=runner)
        plays = contest.play(
            lambda p: ticker.tick(p.done, p.total, p.seconds_left, f"{p.method}, seed {p.seed}, {p.evaluations}")
        )
    judge = evaluator_of(supernet, opened.moments, opened.data, "test", final_images, integers=False)
    with console.progress("verifying") as ticker:
        began = time.monotonic()
        final = contest.verified(
            to_verify(plays, rules.budgets),
            judge,
            lambda n, total: ticker.tick(n, total, (time.monotonic() - began) / n * (total - n)),
        )
    span = Range(full=contest.full, smallest=contest.smallest, floor=contest.floor())
    scores = score(plays, rules.budgets, span, final)
    settings = {
        "network": supernet.digest[:16],
        "evaluations": evaluations,
        "seeds": seeds,
        "images": images,
        "final_images": judge.n_images,
    }
    paths = write_report(folder, scores, settings)
    rows = [
        (
            one.name,
            f"{one.unseen.mean.mean:.3f}",
            f"{one.unseen.mean.low:.3f} to {one.unseen.mean.high:.3f}",
            f"{one.unseen.difference.mean:+.3f}",
            f"{one.hypervolume.mean.mean:.3f}",
            f"{one.chosen.mean.mean:.3f}",
            f"{one.evaluations:.0f}",
            f"{one.seconds:.0f}",
            str(one.failed),
        )
        for one in by_hypervolume(scores)
        if one.unseen is not None
    ]
    columns = (
        *("method", "unseen", "95% interval", f"to {scores.methods[0].name}"),
        *("seen", "at budgets", "n", "s", "failed"),
    )
    console.table("mean accuracy over all latencies, in percent, on images that no search saw", columns, rows)
    document = {
        **scores.to_json(),
        "seconds": time.monotonic() - started,
        "report": {k: str(v) for k, v in paths.items()},
    }
    console.result(document, f"{len(plays)} plays; report: {paths['html']}")


def usual_budgets(charge: Charge) -> tuple[float, ...]:
    """Ten latencies between the smallest subnet's and the full network's, in equal ratios."""
    full, smallest = charge.of(np.stack([charge.sizes, charge.bottom]))
    return tuple(float(x) for x in smallest * (full / smallest) ** (np.arange(1, BUDGETS + 1) / BUDGETS))
