"""`creps unfinished`: list or remove what stopped renders and killed processes left in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...common.command import Command
from ...common.errors import printable
from ...common.files import find_partial_files, remove_dead_partials


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", default=Path(), help="default: this one")
    parser.add_argument("--clear", action="store_true", help="remove those that no process is rendering now")


def _run(args: argparse.Namespace) -> str:
    from ..rendering import find_lone_journals, find_partial_renders, remove_lone_journals, remove_partial_renders

    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is not a folder: name the one that the images were rendered to")
    found = remove_partial_renders(args.folder) if args.clear else find_partial_renders(args.folder)
    prefix = "removed: " if args.clear else ""
    lines = [f"{prefix}{printable(str(leftover))} ({leftover.partial.name})" for leftover in found]
    files = remove_dead_partials(args.folder) if args.clear else find_partial_files(args.folder)
    lines += [f"{prefix}{file} ({printable(file.path.name)})" for file in files]
    journals = remove_lone_journals(args.folder) if args.clear else find_lone_journals(args.folder)
    lines += [f"{prefix}the journal of a finished render ({journal.name})" for journal in journals]
    features = [path for path in (args.folder / "unfinished").glob("**/rows-*.safetensors") if path.is_file()]
    if features:
        size = sum(path.stat().st_size for path in features) / 1e6
        lines.append(
            f"features of an evaluation that was stopped, {size:.1f} MB, in the folder unfinished: the same evaluation "
            "resumes from them, and removes them at its end"
        )
    return "\n".join(lines or ["no unfinished renders"])


PARTIAL_RENDERS_COMMAND = Command(
    "unfinished", "list or remove what stopped renders and killed processes left in a folder", _add_arguments, _run
)
