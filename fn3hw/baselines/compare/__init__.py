"""A fair contest of search methods: the same network, costs, evaluator and number of evaluations for all.

`desk` evaluates what a method asks for and keeps books; `contest` lets every method play with every seed, each play
kept in a file, so that an interrupted contest goes on; `scoring` turns plays into figures with intervals; `report` into
tables and pictures. Accuracies are kept in one archive that all methods share: what one of them asked for need not be
evaluated again, but it counts, and takes as many seconds as it took then.
"""

from fn3hw.baselines.compare.contest import Contest, Progress, Rules, methods_of
from fn3hw.baselines.compare.desk import Desk, Play
from fn3hw.baselines.compare.report import write_report
from fn3hw.baselines.compare.scoring import Scores, score

__all__ = ["Contest", "Desk", "Play", "Progress", "Rules", "Scores", "methods_of", "score", "write_report"]
