"""Training: losses, steps, runs that can be stopped at any time and go on.

Read `run.py` for what a run does, `trainer.py` for a step.
"""

from .averages import rebuild
from .begin import Beginning, Wish, Words, begin, finished_note, fresh_name
from .captured import WARM_UP
from .command import add_arguments, train_command
from .judging import Judge
from .parallel import Process, join, leave
from .patches import random_box
from .preview import Preview
from .recipe import AUGMENTS, Recipe, r1_gamma_for
from .run import Run, Status, read_stats, sample_grid, train
from .snapshots import load_snapshot
from .start import discriminator_config_for, judge_for, load_networks, networks_of
from .step_inputs import PHASES, Draw
from .synthesis import Pieces, synthesize
from .trainer import Trainer

__all__ = [
    "AUGMENTS",
    "PHASES",
    "WARM_UP",
    "Beginning",
    "Draw",
    "Judge",
    "Pieces",
    "Preview",
    "Process",
    "Recipe",
    "Run",
    "Status",
    "Trainer",
    "Wish",
    "Words",
    "add_arguments",
    "begin",
    "discriminator_config_for",
    "finished_note",
    "fresh_name",
    "join",
    "judge_for",
    "leave",
    "load_networks",
    "load_snapshot",
    "networks_of",
    "r1_gamma_for",
    "random_box",
    "read_stats",
    "rebuild",
    "sample_grid",
    "synthesize",
    "train",
    "train_command",
]
