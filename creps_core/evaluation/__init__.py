"""How good is a generator? As a distance between sets of pictures, and by the nearest real ones.

Read `distance.py` first for what needs no weights, `measure.py` for the metrics of the papers: their numbers are
torch-fidelity's, behind the door `fidelity.py`. `evaluate.py` puts them together, `snapshots.py` measures while a run
trains.
"""

from .evaluate import Evaluation, evaluate, every_metric, generator_set
from .measure import Wanted
from .metrics import KINDS, parse_metrics
from .plot import evaluation_plot
from .sets import Real
from .snapshots import judge_of_run

__all__ = [
    "KINDS",
    "Evaluation",
    "Real",
    "Wanted",
    "evaluate",
    "evaluation_plot",
    "every_metric",
    "generator_set",
    "judge_of_run",
    "parse_metrics",
]
