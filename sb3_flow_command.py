"""
The command ``sb3-flow``.

It is not in the package, because importing that takes seconds, in which Ctrl-C must not print a traceback either.
"""

import sys


def main() -> int:
    """
    Run the command.

    :return: Its exit code: 130 for an interrupt
    """
    try:
        from sb3_flow.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("sb3-flow: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
