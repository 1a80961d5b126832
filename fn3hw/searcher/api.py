"""`search`: from a trained network, a cost model and data to the atlas of a run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fn3hw.deploy.runtime import available_cores
from fn3hw.errors import RunError
from fn3hw.searcher.archive import Archive, Evaluation
from fn3hw.searcher.atlas import Atlas, Provenance
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.executors import LocalExecutor
from fn3hw.searcher.export import Exporter
from fn3hw.searcher.heuristic import Heuristic
from fn3hw.searcher.ledger import Ledger
from fn3hw.searcher.ports import AccuracyEvaluator, CostPredictor, Executor, ImageEvaluator
from fn3hw.searcher.racing import Race
from fn3hw.space.files import write_text
from fn3hw.space.subnet import SearchSpace

ARCHIVE = "archive.jsonl"
KEYS = "evaluators.json"
CostBy = Literal["latency", "peak", "size", "blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a search is.

    Args:
        phase: ``"search"``, or ``"verify"`` while the front is evaluated on more images.
        rung: number of the rung, from 1.
        n_rungs: rungs that are expected.
        evaluations: subnets asked for so far, those that the archive answered included.
        budget: subnets that may be asked for.
        best_accuracy: highest accuracy so far in percent.
        seconds: since the start of this call.
        seconds_left: estimate from the evaluations of this call; ``None`` before the first.
    """

    phase: Literal["search", "verify"]
    rung: int
    n_rungs: int
    evaluations: int
    budget: int
    best_accuracy: float
    seconds: float
    seconds_left: float | None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class EvaluatorKeys:
    """Which lines of an archive are a run's last search.

    Args:
        search: key of the evaluator that chose subnets.
        final: key of the one that the front was verified by; the same where it was not.
        profile: checksum of the profile whose front that was.
    """

    search: str
    final: str
    profile: str


def evaluator_keys(folder: Path | str) -> EvaluatorKeys:
    """The keys of the last search of a run.

    Raises:
        RunError: there was none.
    """
    path = Path(folder) / KEYS
    try:
        return EvaluatorKeys(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise RunError(f"{folder} was not searched yet.", hint=f"Run: fn3hw search {folder} --profile F") from None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read: {error}.", hint=f"Run the search again: fn3hw search {folder} --profile F"
        ) from error


def run_search(
    space: SearchSpace,
    cost: CostPredictor,
    evaluator: AccuracyEvaluator,
    provenance: Provenance,
    *,
    folder: Path | str,
    settings: Heuristic | None = None,
    cost_by: CostBy = "latency",
    levels: Iterable[str] | None = None,
    executor: Executor | None = None,
    final: AccuracyEvaluator | None = None,
    exporter: Exporter | None = None,
    progress: OnProgress | None = None,
) -> Atlas:
    """Search with given parts, save the atlas in ``folder`` and return it.

    An interrupted search, called again with the same arguments, goes on where it stopped.

    Args:
        space: the search space.
        cost: what subnets cost.
        evaluator: how accurate they are.
        provenance: what the atlas is made from.
        folder: the run; the archive and the atlas are there.
        settings: of the search; by default `Heuristic`, or its plain form where ``cost_by="blocks"``.
        cost_by: what a rung lowers: predicted ``"latency"``, ``"peak"`` memory, file ``"size"``, or kept ``"blocks"``.
        levels: only gates of these levels move; by default all.
        executor: runs the evaluations; by default in this process, one per core side by side.
        final: evaluates the points of the front once more, on more images; their accuracies are those of the atlas.
        exporter: for `Point.export`.
        progress: called after each evaluation.

    Raises:
        RunError: the archive belongs to another network, or another program writes to it.
        UnknownName: the network has no gate of a level.
        InputError: an accuracy or a predicted cost is not a number; the archive keeps what was evaluated.
    """
    if settings is None:
        settings = Heuristic.plain() if cost_by == "blocks" else Heuristic()
    charge = Charge(space, cost, cost_by, levels=levels)
    runner = executor if executor is not None else LocalExecutor(available_cores())
    with Archive(Path(folder) / ARCHIVE, space, evaluator.key) as archive:
        reporter = _Reporter(progress, settings.evaluations, "search")
        ledger = Ledger(
            archive=archive,
            evaluator=evaluator,
            executor=runner,
            charge=charge,
            budget=settings.evaluations,
            search=settings.identity(charge),
            race=race_of(settings, evaluator, runner),
            after_each=lambda: reporter.report(ledger),
        )
        settings.run(charge, ledger, reporter.on_rung)
        reporter.report(ledger)
    atlas = Atlas.build(archive.evaluations, cost, provenance, space=space, exporter=exporter)
    if final is not None and final.key != evaluator.key:
        atlas = _verified(atlas, cost, final, charge, runner, folder, progress)
    atlas.save(folder)
    keys = EvaluatorKeys(evaluator.key, provenance.evaluator, provenance.profile)
    write_text(Path(folder) / KEYS, json.dumps(asdict(keys), indent=1) + "\n")
    return atlas


def race_of(settings: Heuristic, evaluator: AccuracyEvaluator, executor: Executor) -> Race | None:
    """The race of a search; none where it is not wanted, or where the evaluator says nothing about single images."""
    if settings.race is None or not isinstance(evaluator, ImageEvaluator):
        return None
    return Race(evaluator, executor, behind=settings.race)


def _verified(
    atlas: Atlas,
    cost: CostPredictor,
    final: AccuracyEvaluator,
    charge: Charge,
    executor: Executor,
    folder: Path | str,
    progress: OnProgress | None,
) -> Atlas:
    """The atlas of the front's points, each evaluated by ``final``: the best of many noisy values looks too good."""
    reporter = _Reporter(progress, len(atlas), "verify")
    subnets = [point.subnet for point in atlas.points]
    with Archive(Path(folder) / ARCHIVE, charge.space, final.key) as archive:
        missing = [subnet for subnet in subnets if subnet not in archive]
        best, started = 0.0, time.perf_counter()
        for done, (subnet, accuracy) in enumerate(
            zip(missing, executor.map(final.accuracy, missing), strict=True), len(subnets) - len(missing) + 1
        ):
            now = time.perf_counter()
            archive.append(Evaluation(subnet, float(accuracy), now - started, "verify"))
            started, best = now, max(best, float(accuracy))
            reporter.emit(done, len(missing) - (len(subnets) - done), best)
    evaluations = [found for subnet in subnets if (found := archive.find(subnet)) is not None]
    return Atlas.build(evaluations, cost, atlas.provenance, space=charge.space, exporter=atlas.exporter)


class _Reporter:
    def __init__(self, progress: OnProgress | None, budget: int, phase: Literal["search", "verify"]) -> None:
        self._progress = progress
        self._budget = budget
        self._phase: Literal["search", "verify"] = phase
        self._rung = (0, 0)
        self._started = time.perf_counter()

    def on_rung(self, rung: int, n_rungs: int) -> None:
        self._rung = (rung, n_rungs)

    def report(self, ledger: Ledger) -> None:
        self.emit(ledger.spent, ledger.evaluated, float(ledger.accuracies.max(initial=0.0)))

    def emit(self, done: int, evaluated: int, best_accuracy: float) -> None:
        if self._progress is None:
            return
        seconds = time.perf_counter() - self._started
        self._progress(
            Progress(
                phase=self._phase,
                rung=self._rung[0],
                n_rungs=self._rung[1],
                evaluations=done,
                budget=self._budget,
                best_accuracy=best_accuracy,
                seconds=seconds,
                seconds_left=seconds / evaluated * (self._budget - done) if evaluated else None,
            )
        )
