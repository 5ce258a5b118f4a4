"""The command ``sb3-flow``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from sb3_flow.datasets import commands as datasets
from sb3_flow.tables import report, sweep
from sb3_flow.zoo import commands as zoo

#: Each adds one command to the parser. A command sets ``run``, a function of the parsed arguments.
COMMANDS: tuple[Callable[[argparse._SubParsersAction[argparse.ArgumentParser]], None], ...] = (
    datasets.add_commands,  # one line each
    zoo.add_commands,
    report.add_commands,
    sweep.add_commands,
)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(prog="sb3-flow", description="Flow-policy reinforcement learning.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: The command line without the program's name; default: that of this process
    :return: Exit code: 0, 2 if the command could not do what it was asked, 130 if it was interrupted
    """
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
    except (ValueError, ImportError, OSError) as error:  # these say what was wrong and what to do; DatasetError is one
        print(f"sb3-flow: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sb3-flow: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
