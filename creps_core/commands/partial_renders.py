"""`creps unfinished`: list or remove partial renders."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...common.command import Command
from ...common.errors import printable


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", default=Path(), help="default: this one")
    parser.add_argument("--clear", action="store_true", help="remove those that no process is rendering now")


def _run(args: argparse.Namespace) -> str:
    from ..rendering import find_partial_renders, remove_partial_renders

    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is not a folder: name the one that the images were rendered to")
    found = remove_partial_renders(args.folder) if args.clear else find_partial_renders(args.folder)
    prefix = "removed: " if args.clear else ""
    lines = [f"{prefix}{printable(str(leftover))} ({leftover.partial.name})" for leftover in found]
    return "\n".join(lines or ["no unfinished renders"])


PARTIAL_RENDERS_COMMAND = Command(
    "unfinished", "list or remove renders to files that were stopped before the end", _add_arguments, _run
)
