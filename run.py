#!/usr/bin/env python3
"""
Three commands of a checkout, which need Python only:

    python3 run.py demo [ARGUMENTS]    train a policy from logged data (arguments: see examples/fql_maze_demo.py)
    python3 run.py test [ARGUMENTS]    lint, types and tests (arguments: pytest's, such as -k fql)
    python3 run.py docs [ARGUMENTS]    build the documentation site in site/ (argument: serve, to show it at localhost:8000)

They create a virtual environment in .venv and install the requirements there, when they run for the first time and when the
requirements have changed.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
#: This file exists while the installation is incomplete.
UNFINISHED = VENV / "unfinished"
#: Files on which the installation depends.
REQUIREMENTS = (ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "sb3_flow" / "__init__.py")

#: Each command: the extra that it needs, and the programs that it runs. The last one gets the arguments.
COMMANDS = {
    "demo": ("demo", [["examples/fql_maze_demo.py"]]),
    "test": (
        "tests",
        [
            ["-m", "ruff", "check", "."],
            ["-m", "ruff", "format", "--check", "."],
            ["-m", "mypy", "--num-workers", "auto"],
            ["-m", "pytest", "--numprocesses", "auto", "--dist", "worksteal", "--durations=25"],
        ],
    ),
    "docs": ("docs", [["-m", "mkdocs"]]),
}
#: Arguments of the commands if none are given.
DEFAULTS = {"docs": ["build"]}


def main(arguments):
    if sys.version_info < (3, 10):  # noqa: UP036 (users may have an older version)
        return fail(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__.strip())
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    extra, steps = COMMANDS[arguments[0]]
    if not prepare(extra):
        return 1
    rest = arguments[1:] or DEFAULTS.get(arguments[0], [])
    codes = [run(step) for step in [*steps[:-1], steps[-1] + rest]]
    return next((code for code in codes if code != 0), 0)


def prepare(extra):
    """Install or update an extra of the package in .venv. Return whether this succeeded."""
    stamp = VENV / f"installed-{extra}"
    digest = hashlib.sha256("\n".join([str(ROOT), *(path.read_text("utf-8") for path in REQUIREMENTS)]).encode()).hexdigest()
    usable = PYTHON.exists() and not UNFINISHED.exists()
    if usable and stamp.exists() and stamp.read_text("utf-8") == digest:
        return True
    if not usable and not make_environment():
        return False
    stamp.unlink(missing_ok=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    package = [*pip, "--editable", f".[{extra}]", "--constraint", "constraints.txt"]
    # The pip of an older Python can take minutes for what a newer pip does in seconds.
    if not quietly("Updating pip", [*pip, "--upgrade", "pip"]):
        return False
    if not quietly(f"Installing sb3_flow[{extra}] (this downloads PyTorch when it runs for the first time)", package):
        return False
    stamp.write_text(digest, "utf-8")
    UNFINISHED.unlink(missing_ok=True)
    return True


def make_environment():
    """Create .venv, and replace an incomplete one. Return whether this succeeded."""
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        fail("This Python cannot create virtual environments. On Debian and Ubuntu: sudo apt install python3-venv")
        return False
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    UNFINISHED.touch()
    return quietly("Creating .venv", [sys.executable, "-m", "venv", str(VENV)])


def quietly(title, command):
    """Run a command with one line of progress, and print its output only if it fails. Return whether it succeeded."""
    print(f"{title} ... ", end="", flush=True)
    start = time.monotonic()
    process = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    if process.returncode == 0:
        print(f"{time.monotonic() - start:.0f} s", flush=True)
        return True
    print(f"failed\n{process.stdout}", flush=True)
    fail(f"`{title}` failed; its output is above.")
    return False


def run(arguments):
    """Run a command with the Python of .venv. Return its exit code."""
    print(f"$ python {' '.join(arguments)}", flush=True)
    return subprocess.run([str(PYTHON), *arguments], cwd=ROOT).returncode


def fail(message):
    print(f"run.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
