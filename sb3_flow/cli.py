"""The command ``sb3-flow``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import gymnasium

from sb3_flow import __version__
from sb3_flow.datasets import commands as datasets
from sb3_flow.tables import report, sweep
from sb3_flow.zoo import commands as zoo
from sb3_flow.zoo import export

#: Functions that add commands to the parser. Each command sets ``run``, a function of the parsed arguments.
COMMANDS: tuple[Callable[[argparse._SubParsersAction[argparse.ArgumentParser]], None], ...] = (
    datasets.add_commands,
    zoo.add_commands,
    export.add_commands,
    report.add_commands,
    sweep.add_commands,
)


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of all commands."""
    parser = argparse.ArgumentParser(prog="sb3-flow", description="Flow-policy reinforcement learning.")
    parser.add_argument("--version", action="version", version=f"sb3_flow {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: The command line without the program's name; default: that of this process
    :return: Exit code: 0 for success, 2 for an error, 130 for an interrupt
    """
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python prints an error at exit
    except (ValueError, ImportError, OSError, gymnasium.error.Error) as error:  # these have a message for users
        print(f"sb3-flow: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sb3-flow: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
