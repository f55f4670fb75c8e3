"""The command line `creps`: the table of its commands, and what happens when one fails."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from dataclasses import replace

from ..common.errors import TrainingError, out_of_memory, printable, quoted
from . import __version__
from .bench.command import BENCH_COMMAND
from .commands import CONVERT_COMMAND, INFO_COMMAND, PARTIAL_RENDERS_COMMAND, RENDER_COMMAND
from .data.prepare import DATA_COMMAND
from .evaluation.command import EVALUATE_COMMAND
from .serving.command import EXPLORE_COMMAND
from .training import TRAIN_COMMAND, run_training

log: logging.Logger = logging.getLogger("CREPS")


def _train(args: argparse.Namespace) -> None:
    """`creps train` with the metrics of snapshots, which lie in a folder above training."""
    from .evaluation import snapshot_metrics_of

    run_training(args, snapshot_metrics_of)


COMMANDS = (
    RENDER_COMMAND,
    PARTIAL_RENDERS_COMMAND,
    EXPLORE_COMMAND,
    INFO_COMMAND,
    CONVERT_COMMAND,
    DATA_COMMAND,
    replace(TRAIN_COMMAND, run=_train),
    EVALUATE_COMMAND,
    BENCH_COMMAND,
)
"""In the order of `creps --help`."""

_EXPECTED_ERRORS = (ValueError, OverflowError, OSError, MemoryError, ImportError, TrainingError)
"""Errors whose message tells the user what to do; all others are bugs and keep their traceback."""
_OUT_OF_MEMORY = "lower the size, or close other programs"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 success, 1 failure, 2 wrong arguments, 130 interrupted."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # characters that the terminal cannot show appear as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_escape)
    try:
        text = args.run(args)
        if text is not None:
            print(text)
    except KeyboardInterrupt:
        log.error("stopped")
        return 130
    except _EXPECTED_ERRORS as error:
        log.error("creps %s: %s", args.command, str(error) or f"out of memory: {_OUT_OF_MEMORY}")
        return 1
    except RuntimeError as error:
        if "can't start new thread" in str(error):
            log.error("creps %s: close other programs, or raise the limit of processes (no more threads)", args.command)
            return 1
        if not out_of_memory(error):
            raise
        log.error("creps %s: out of memory (%s): %s", args.command, quoted(error), _OUT_OF_MEMORY)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="creps", description="Any-scale image generation.")
    parser.add_argument("--version", action="version", version=f"creps {__version__}")
    names = " | ".join(command.name for command in COMMANDS)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar=names)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def _escape(record: logging.LogRecord) -> bool:
    """A log filter that escapes control characters, which names in files may contain; line breaks stay."""
    text = record.getMessage()
    if not text.replace("\n", "").isprintable():
        record.msg, record.args = "\n".join(printable(line, 10_000) for line in text.split("\n")), ()
    return True


if __name__ == "__main__":
    raise SystemExit(main())
