"""Training: losses, steps, runs that can be stopped at any time and go on.

Read `run.py` for what a run does, `trainer.py` for a step.
"""

from .averages import rebuild
from .begin import Beginning, RunRequest, Terms, begin, finished_note, fresh_name
from .command import TRAIN_COMMAND, run_training
from .gradients import NetworkOptimizer
from .parallel import Process, join, leave
from .patches import random_box
from .phase_graphs import WARM_UP
from .phases import PHASES, Phase, PhaseLoss, run_phase
from .preview import Preview
from .recipe import AUGMENTS, Recipe, r1_gamma_for
from .run import Run, Status, read_stats, sample_grid, train
from .snapshot_metrics import Judge
from .snapshots import load_snapshot
from .start import discriminator_config_for, discriminator_for, load_networks, networks_of
from .step_inputs import LatentBatch, StepInputs
from .synthesis import TileSizes, synthesize
from .trainer import Trainer

__all__ = [
    "AUGMENTS",
    "PHASES",
    "TRAIN_COMMAND",
    "WARM_UP",
    "Beginning",
    "Judge",
    "LatentBatch",
    "NetworkOptimizer",
    "Phase",
    "PhaseLoss",
    "Preview",
    "Process",
    "Recipe",
    "Run",
    "RunRequest",
    "Status",
    "StepInputs",
    "Terms",
    "TileSizes",
    "Trainer",
    "begin",
    "discriminator_config_for",
    "discriminator_for",
    "finished_note",
    "fresh_name",
    "join",
    "leave",
    "load_networks",
    "load_snapshot",
    "networks_of",
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
