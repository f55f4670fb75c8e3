"""Metrics of generators: distances between sets of images, the nearest training images, scale consistency.

Start with `metrics.py`, the table of all metrics. `evaluate.py` measures them; `measure.py` those of torch-fidelity,
whose interface is `fidelity.py`; `sliced_wasserstein.py` needs no weights. `snapshots.py` measures a training run.
"""

from .evaluate import Evaluation, evaluate, generator_set
from .metrics import METRICS, Metric, every_metric, parse_metrics
from .networks import WeightFiles
from .plot import evaluation_plot
from .request import EvaluationRequest, Workspace, task_progress
from .sets import RealImages
from .snapshots import snapshot_metrics_of

__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationRequest",
    "Metric",
    "RealImages",
    "WeightFiles",
    "Workspace",
    "evaluate",
    "evaluation_plot",
    "every_metric",
    "generator_set",
    "parse_metrics",
    "snapshot_metrics_of",
    "task_progress",
]
