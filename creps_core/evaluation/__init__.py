"""How good is a generator? As a distance between sets of pictures, and by the nearest real ones.

Read `distance.py` first for what needs no weights, `measure.py` for the metrics of the papers: their numbers are
torch-fidelity's, behind the door `fidelity.py`. `snapshots.py` measures while a run trains.
"""

from .snapshots import judge_of_run

__all__ = ["judge_of_run"]
