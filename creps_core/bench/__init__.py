"""`creps bench`: speed relative to the published formulation, errors, and memory.

Read `command.py` first; `speed.py`, `memory.py` and `training.py` run in processes of their own.
"""
