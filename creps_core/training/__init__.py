"""Training: losses, steps, and runs that can be stopped at any time and resumed.

Read `loop.py` for a run, `trainer.py` for a step, `losses.py` for what its phases minimise.
"""

from .averages import rebuild
from .begin import OpenedRun, open_run
from .command import TRAIN_COMMAND, run_training
from .gradients import NetworkOptimizer
from .loop import train
from .parallel import Process, join, leave
from .patches import random_box
from .phase_graphs import WARM_UP
from .phases import PHASES, Phase, PhaseLoss, run_phase
from .recipe import AUGMENTS, FINE_TUNING, Recipe, average_for, r1_gamma_for
from .request import RunRequest, Terms, finished_note
from .run import Run
from .sheets import SampleHistory, sample_grid
from .snapshot_metrics import SnapshotMetrics
from .snapshots import load_snapshot
from .start import discriminator_config_for, discriminator_for, load_networks, networks_of
from .stats import read_stats
from .status import Status
from .step_inputs import LatentBatch, StepInputs
from .synthesis import TileSizes, synthesize
from .trainer import Trainer

__all__ = [
    "AUGMENTS",
    "FINE_TUNING",
    "PHASES",
    "TRAIN_COMMAND",
    "WARM_UP",
    "LatentBatch",
    "NetworkOptimizer",
    "OpenedRun",
    "Phase",
    "PhaseLoss",
    "Process",
    "Recipe",
    "Run",
    "RunRequest",
    "SampleHistory",
    "SnapshotMetrics",
    "Status",
    "StepInputs",
    "Terms",
    "TileSizes",
    "Trainer",
    "average_for",
    "discriminator_config_for",
    "discriminator_for",
    "finished_note",
    "join",
    "leave",
    "load_networks",
    "load_snapshot",
    "networks_of",
    "open_run",
    "r1_gamma_for",
    "random_box",
    "read_stats",
    "rebuild",
    "run_phase",
    "run_training",
    "sample_grid",
    "synthesize",
    "train",
]
