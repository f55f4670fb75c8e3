"""Commands that belong to no other folder. Those of data, training, evaluation, serving and bench live there.

A command is a `Command` value; `cli.py` has the table.
"""

from .convert import CONVERT_COMMAND
from .info import INFO_COMMAND
from .partial_renders import PARTIAL_RENDERS_COMMAND
from .render import RENDER_COMMAND

__all__ = ["CONVERT_COMMAND", "INFO_COMMAND", "PARTIAL_RENDERS_COMMAND", "RENDER_COMMAND"]
