"""
Train online for hours, with faults at random moments, and compare each run with one without faults.

    OMP_NUM_THREADS=1 python benchmarks/soak.py [--hours 2] [--results soak.jsonl]

Each run draws an algorithm and its settings, and is resumed after each of its faults: an observation or a reward that is not
finite, an environment that raises, a full disk (a limit on the size of files, so that the operating system refuses a write in
the middle of a file), SIGINT or SIGKILL at any moment or while a checkpoint is written. At its end, all files are compared bit
for bit with those of the same run without faults: parameters, optimizers, counters, random states, replay buffer, statistics,
state of the callbacks, evaluations, episodes. Each run adds a line to the results; a second call continues after the last one.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from soak_run import ALGORITHMS, Fault, Spec, contents, work

#: Processes are forked from one that has imported everything, which saves seconds for each of them.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "soak_run"])
KINDS = ("observation", "reward", "environment", "disk", "interrupt", "kill")
MODES = ("script", "script", "loop", "command")
#: Seconds without a timestep after which a process hangs.
PATIENCE = 120


class Clock:
    """Seconds in which this process ran: not those in which it was stopped by a signal."""

    def __init__(self) -> None:
        self.seconds, self.last = 0.0, time.monotonic()

    def tick(self) -> float:
        now = time.monotonic()
        self.seconds, self.last = self.seconds + min(now - self.last, 5.0), now
        return self.seconds


class End(NamedTuple):
    """
    How one training ended.

    :param error: The error; None: there was none
    :param happened: What the fault did, empty if it did not happen
    :param steps: Environment steps at the last timestep
    :param timesteps: Timesteps of the run
    :param rss: Resident memory of its process, MB; 0: it was killed
    """

    error: str | None
    happened: dict[str, Any]
    steps: int
    timesteps: int
    rss: float = 0.0


def draw(number: int, seed: int) -> tuple[Spec, list[Fault]]:
    """Draw a run and its faults."""
    rng = random.Random(f"{seed}-{number}")
    name = [*ALGORITHMS][number % len(ALGORITHMS)]
    method, arguments = ALGORITHMS[name]
    takes_data = method.regime != "online"
    offline_steps = 200 if "BC flow" in method.regime else rng.choice([0, 200]) * takes_data
    n_envs = rng.choice([1, 1, 2])
    chunks = {"horizon_length": rng.choice([1, 1, 4])} if takes_data and "BC flow" not in method.regime else {}
    own = {**chunks, "train_freq": rng.choice([1, 1, 3])}
    spec = Spec(
        name,
        rng.choice(MODES),
        rng.randrange(10**6),
        n_envs=n_envs,
        normalize=rng.random() < 0.4,
        offline_steps=offline_steps,
        arguments={key: value for key, value in own.items() if key not in arguments},
    )
    kinds = [kind for kind in KINDS if not (kind == "kill" and spec.mode == "loop")]
    return spec, [draw_fault(rng, spec, rng.choice(kinds)) for _ in range(rng.randint(4, 9))]


def draw_fault(rng: random.Random, spec: Spec, kind: str) -> Fault:
    return Fault(
        kind,
        # Sometimes before the first checkpoint of its process, so that nothing is gained, and usually after it.
        after=rng.randint(1, int(1.6 * spec.save_freq / spec.n_envs)),
        value=rng.choice([float("nan"), float("inf"), float("-inf")]),
        in_checkpoint=kind in ("interrupt", "kill") and rng.random() < 0.5,
        delay=rng.choice([0.0, rng.uniform(0, 0.02)]),
        file_size_limit=rng.choice([0, rng.randint(1, 20_000)]),
    )


class Process:
    """
    A process that trains, as its parent sees it.

    :param spec: The run
    :param folder: The run's folder
    :param faults: The faults, one for each time that it trains
    :param clock: Counts the seconds
    """

    def __init__(self, spec: Spec, folder: Path, faults: list[Fault | None], clock: Clock) -> None:
        self.connection, other = CONTEXT.Pipe()
        self.folder, self.clock = folder, clock
        self.process = CONTEXT.Process(target=work, args=(spec, folder, faults, other))
        self.process.start()
        other.close()

    def train(self, fault: Fault | None) -> End:
        """Follow it until training ends, and send the signal if that is the fault."""
        count = steps = timesteps = 0
        signals = {"interrupt": signal.SIGINT, "kill": signal.SIGKILL}
        pending = fault if fault is not None and fault.kind in signals else None
        last_tick = self.clock.tick()
        while True:
            ready = pending is not None and count >= pending.after
            if ready and pending is not None and (not pending.in_checkpoint or self._is_writing()):
                time.sleep(pending.delay)
                os.kill(self._pid(), signals[pending.kind])
                pending = None
            if not self.connection.poll(0.0005 if ready else 0.05):
                if self.clock.tick() - last_tick > PATIENCE:
                    self.process.kill()
                continue
            last_tick = self.clock.tick()
            try:
                kind, *content = self.connection.recv()
            except EOFError:
                self.process.join()
                return End(f"exit code {self.process.exitcode}", {"signal": not pending}, steps, timesteps)
            if kind == "end":
                error, happened, rss = content
                sent = fault is not None and fault.kind in signals and not pending
                return End(error, {"signal": True} if sent else happened, steps, timesteps, rss)
            count, (timesteps, steps) = count + 1, content

    def _is_writing(self) -> bool:
        return any(self.folder.rglob(".checkpoint_*.partial"))

    def _pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def close(self) -> None:
        self.process.join()
        self.connection.close()


def expected(spec: Spec, fault: Fault, end: End) -> str:
    """What the error must match: it names the step, the environment and the field."""
    by_command = spec.mode == "command"
    prefix = "SystemExit: exit code 2: sb3-flow: " if by_command else "[A-Za-z]*Error: .*"
    value, where = re.escape(str(fault.value)), end.happened.get("environment")
    # The step after the last one that callbacks saw; they saw none if it was the first one of the process.
    n = end.steps + spec.n_envs if end.steps else r"\d+"
    if fault.kind == "reward":
        return f"{prefix}After {n} environment steps, the reward of environment {where} is {value}"
    if fault.kind == "observation":
        place = f"(After {n} environment steps, the|The first) observation( of an episode)? of environment {where}"
        return f"{prefix}{place}.* has the value {value}"
    if fault.kind == "environment":
        return f"{'SystemExit: exit code 1: ' * by_command}RuntimeError: the simulator has ended"
    if fault.kind == "disk":
        return f"{prefix}.*File too large"
    if fault.kind == "interrupt":
        return "SystemExit: exit code 130: sb3-flow: interrupted" if by_command else "KeyboardInterrupt"
    return "exit code -9"


def problems_of(spec: Spec, fault: Fault | None, end: End) -> list[str]:
    """What was wrong with the end of a training."""
    if fault is None:
        return [f"without faults: {end.error}"] if end.error else []
    if end.error is None:
        return [f"{fault.kind}: no error"] if end.happened and fault.kind in ("observation", "reward", "environment") else []
    if not end.happened:
        return [f"{fault.kind}, which did not happen: {end.error}"]
    pattern = expected(spec, fault, end)
    return [] if re.search(pattern, end.error) else [f"{fault.kind}: {end.error}; expected {pattern}"]


def row_of(fault: Fault, end: End) -> dict[str, Any]:
    """A fault in the results, with the last line of its error."""
    error = None if end.error is None else end.error.strip().splitlines()[-1][:300]
    return {**asdict(fault), "happened": bool(end.happened and end.error), "timesteps": end.timesteps, "error": error}


def soak(number: int, seed: int, folder: Path) -> dict[str, Any]:
    """
    One run with faults, and one without.

    :param number: Number of the run
    :param seed: Seed of all runs
    :param folder: An empty folder
    :return: The row of results
    """
    spec, faults = draw(number, seed)
    clock, rows, memory = Clock(), list[dict[str, Any]](), list[float]()
    whole, failing = folder / "whole" / "run", folder / "failing" / "run"
    for run in (whole, failing):
        run.parent.mkdir()
    process = Process(spec, whole, [None], clock)
    problems = problems_of(spec, None, process.train(None))
    process.close()
    plan: list[Fault | None] = [*faults, None]
    shared = Process(spec, failing, plan, clock) if spec.mode == "loop" else None
    for fault in plan:
        process = shared or Process(spec, failing, [fault], clock)
        end = process.train(fault)
        problems += problems_of(spec, fault, end)
        memory += [end.rss] * bool(end.rss)
        rows += [row_of(fault, end)] if fault is not None else []
        if process is not shared:
            process.close()
            if end.error is None:
                break
    if shared is not None:
        shared.close()
    differences = compare(whole, failing)
    return {
        **{"run": number, **asdict(spec), "faults": rows, "problems": problems, "equal": not differences},
        **{"differences": differences[:20], "memory_mb": [*map(round, memory)], "seconds": round(clock.tick(), 1)},
    }


def compare(whole: Path, failing: Path) -> list[str]:
    """The names of what differs between the files of two runs."""
    try:
        first, second = dict(contents(whole)), dict(contents(failing))
    except Exception as error:
        return [f"cannot be read: {type(error).__name__}: {error}"]
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]


def summary(rows: list[dict[str, Any]]) -> str:
    """The table of faults by kind, and what was found."""
    happened, resumed, lost = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        for fault in row["faults"]:
            if fault["happened"]:
                kind = f"{fault['kind']}, in a checkpoint" if fault["in_checkpoint"] else fault["kind"]
                happened[kind] += 1
                (resumed if row["equal"] and not row["problems"] else lost)[kind] += 1
    lines = ["| fault | number | of these, in runs that ended equal | in other runs |", "| --- | --- | --- | --- |"]
    lines += [f"| {kind} | {n} | {resumed[kind]} | {lost[kind]} |" for kind, n in sorted(happened.items())]
    lines.append(f"| all | {happened.total()} | {resumed.total()} | {lost.total()} |")
    equal = sum(row["equal"] for row in rows)
    hours = sum(row["seconds"] for row in rows) / 3600
    lines.append(f"\n{len(rows)} runs in {hours:.2f} hours, {equal} equal to the run without faults.")
    growth = [
        row["memory_mb"][-1] - row["memory_mb"][1] for row in rows if row["mode"] == "loop" and len(row["memory_mb"]) > 3
    ]
    if growth:
        lines.append(
            f"Memory of {len(growth)} processes from their second training to their last: at most {max(growth):+} MB."
        )
    modes = Counter(row["mode"] for row in rows)
    lines.append(f"Modes: {dict(modes)}; algorithms: {len({row['algorithm'] for row in rows})}.")
    for row in rows:
        if row["problems"] or not row["equal"]:
            lines.append(f"run {row['run']} ({row['algorithm']}, {row['mode']}): {row['problems']} {row['differences'][:5]}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="running time, together with that of earlier calls")
    parser.add_argument("--results", type=Path, default=Path("soak.jsonl"), help="file of results, one run a line")
    parser.add_argument("--seed", type=int, default=0, help="seed of all runs")
    parser.add_argument("--only", type=int, help="repeat one run, print its row, and keep its files")
    parser.add_argument("--summary", action="store_true", help="only print the table of the results so far")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.only is not None:
        folder = Path(tempfile.mkdtemp())
        print(json.dumps(soak(arguments.only, arguments.seed, folder), indent=1), folder)
        return
    text = arguments.results.read_text("utf-8") if arguments.results.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    while not arguments.summary and sum(row["seconds"] for row in rows) < 3600 * arguments.hours:
        folder = Path(tempfile.mkdtemp())
        rows.append(soak(len(rows), arguments.seed, folder))
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        if rows[-1]["equal"] and not rows[-1]["problems"]:
            shutil.rmtree(folder)
        else:
            print(
                f"run {len(rows) - 1}: {rows[-1]['problems']} {rows[-1]['differences'][:5]}; its files: {folder}", flush=True
            )
    print(summary(rows))


if __name__ == "__main__":
    main()
