"""
Fuzz everything that reads: datasets, saved models, replay buffers, checkpoints, configurations and options.

    pip install atheris
    OMP_NUM_THREADS=1 python benchmarks/fuzz.py --minutes 60 [--targets npz model ...] [--folder fuzz]

Atheris chooses the inputs by the coverage of this package. An input is a script of edits: of arrays, trees of JSON, members
of archives, or bytes of a valid small file. It is accepted, or it raises an error of this package: an exception from its own
code, of one line. What is accepted has only finite numbers, and a batch or an action can be drawn from it. All else is a
finding, and is written to ``findings.jsonl`` in the folder, once per place; ``--repeat`` runs one of its inputs again. Corpora
are kept in the folder, so that a second call continues.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    sys.exit("This script needs the package `atheris`: pip install atheris")

with atheris.instrument_imports(include=["sb3_flow"]):
    import fuzz_targets

#: Memory of a process, bytes: an input must not claim more.
MEMORY = 6 * 2**30


def place_of(error: BaseException) -> str:
    """Where an exception was raised: file, line and function of the last frame, and of the last one in this package."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(fuzz_targets.PACKAGE)]
    last = [frames[-1], *ours[-1:]]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}:{frame.name}" for frame in last)


class Fuzzer:
    """
    Runs one target, and writes findings.

    :param name: Name of the target
    :param folder: Folder of corpora and findings
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.findings = name, folder / "findings.jsonl"
        self.scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.target: Callable[[Any, Path], Any] = fuzz_targets.TARGETS[name]
        self.seen: set[str] = set()
        self.outcomes = Counter[str]()
        self.tallies = folder / f"{name}.json"

    def __call__(self, content: bytes) -> None:
        for left in self.scratch.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        os.chdir(self.scratch)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                self.target(atheris.FuzzedDataProvider(content), self.scratch)
                self.outcomes["accepted"] += 1
            except Exception as error:
                reason = fuzz_targets.unclear(error)
                self.outcomes["error" if reason is None else "finding"] += 1
                if reason is not None:
                    self.write(reason, error, content)
        if sum(self.outcomes.values()) % 200 == 0:
            self.tallies.write_text(json.dumps(self.outcomes))

    def write(self, reason: str, error: BaseException, content: bytes) -> None:
        place = f"{type(error).__name__} {place_of(error)}"
        if place in self.seen:
            return
        self.seen.add(place)
        found = {"target": self.name, "reason": reason, "place": place, "message": str(error)[:400]}
        found["input"] = base64.b64encode(content).decode()
        with self.findings.open("a") as file:
            file.write(json.dumps(found) + "\n")


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Fuzz one target, and end this process."""
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    options = [
        f"-max_total_time={seconds}",
        "-timeout=60",
        "-rss_limit_mb=2500",
        "-max_len=600",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    options.append(f"-artifact_prefix={folder}/{name}-")
    fuzzer = Fuzzer(name, folder)
    atheris.Setup([sys.argv[0], *options, str(corpus)], fuzzer)
    atheris.Fuzz()


def fuzz_all(names: list[str], minutes: float, folder: Path) -> None:
    """Fuzz the targets in turn, each in a process of its own, which is started again if it crashes."""
    total = Counter[str]()
    for name in names:
        end = time.monotonic() + 60 * minutes / len(names)
        while (left := int(end - time.monotonic())) > 0:
            command = [sys.executable, __file__, "--targets", name, "--seconds", str(left), "--folder", str(folder)]
            with (folder / f"{name}.log").open("a") as log:
                code = subprocess.run(command, stdout=log, stderr=log).returncode
            tallies = folder / f"{name}.json"
            outcomes = Counter(json.loads(tallies.read_text())) if tallies.exists() else Counter[str]()
            tallies.unlink(missing_ok=True)
            total += outcomes
            print(f"{name}: exit code {code}, {dict(outcomes)}", flush=True)
            with (folder / "outcomes.jsonl").open("a") as file:
                file.write(json.dumps({"target": name, "code": code, **outcomes}) + "\n")
    print(f"all: {dict(total)}")


def repeat(number: int, folder: Path) -> None:
    """Run the input of a finding, with its traceback."""
    found = json.loads((folder / "findings.jsonl").read_text().splitlines()[number])
    scratch = Path(tempfile.mkdtemp())
    os.chdir(scratch)
    fuzz_targets.TARGETS[found["target"]](atheris.FuzzedDataProvider(base64.b64decode(found["input"])), scratch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="time of all targets together")
    parser.add_argument("--seconds", type=int, help="time of one target, in this process")
    parser.add_argument("--targets", nargs="+", default=[*fuzz_targets.TARGETS], choices=[*fuzz_targets.TARGETS])
    parser.add_argument("--folder", type=Path, default=Path("fuzz"), help="folder of corpora and findings")
    parser.add_argument("--repeat", type=int, help="run the input of one finding, by its number")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.repeat is not None:
        repeat(arguments.repeat, folder)
    elif arguments.seconds is not None:
        fuzz(arguments.targets[0], arguments.seconds, folder)
    else:
        fuzz_all(arguments.targets, arguments.minutes, folder)


if __name__ == "__main__":
    main()
