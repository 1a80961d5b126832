"""What to remove: from a trained network and a cost model to the subnet for any budget.

The search is Algorithm 1 of the FN3 paper, charged by predicted cost instead of by removed blocks. Data flows one way::

    Heuristic --states--> Ledger --subnets--> Race --> Executor(Evaluator) --accuracies--> Archive --+
        ^                    |                                                                       |
        +--known accuracies--+                                                CostModel --> Atlas <--+--> Exporter

``Heuristic`` decides which states to try, from a seed and from known accuracies alone. ``Charge`` says what a state
costs and along which counts each gate moves. ``Ledger`` keeps the budget; the append-only ``Archive`` is its memory, so
an interrupted search replays its decisions and goes on. ``Race`` shows candidates growing parts of the images and gives
up those that are certainly beaten; executors evaluate here or on a cluster, and change no result. ``Atlas`` needs only
the archive and a cost model, so a new profile gives a new atlas at once.
"""

from fn3hw.searcher.api import Progress, run_search
from fn3hw.searcher.archive import Archive, Evaluation
from fn3hw.searcher.atlas import Atlas, Point, Provenance
from fn3hw.searcher.budget import Budget
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.evaluator import Evaluator
from fn3hw.searcher.executors import LocalExecutor, open_executor
from fn3hw.searcher.export import Exported, Exporter, Meter
from fn3hw.searcher.heuristic import Heuristic
from fn3hw.searcher.plot import plot_front
from fn3hw.searcher.ports import AccuracyEvaluator, CostPredictor, Executor, SearchData
from fn3hw.searcher.searching import exporter_of, provenance_of, search

__all__ = [
    "AccuracyEvaluator",
    "Archive",
    "Atlas",
    "Budget",
    "Charge",
    "CostPredictor",
    "Evaluation",
    "Evaluator",
    "Executor",
    "Exported",
    "Exporter",
    "Heuristic",
    "LocalExecutor",
    "Meter",
    "Point",
    "Progress",
    "Provenance",
    "SearchData",
    "exporter_of",
    "open_executor",
    "plot_front",
    "provenance_of",
    "run_search",
    "search",
]
