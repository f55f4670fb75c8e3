"""A subcommand of the command line `creps` as a value; `creps_core/cli.py` has the table of all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: what the user types.
        help: one line for `creps --help`.
        add_arguments: adds its arguments to a parser.
        run: executes it; returns the text for standard output, or None.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], str | None]
