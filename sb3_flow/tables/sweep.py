"""The command ``sb3-flow sweep``: many runs, scheduled by Ray."""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sb3_flow.common.arguments import former_names_of, hints_of
from sb3_flow.common.checkpoints import latest_checkpoint
from sb3_flow.common.cores import cores
from sb3_flow.common.optional import require
from sb3_flow.datasets import RECIPES, DatasetError, load_dataset
from sb3_flow.tables import supervisor
from sb3_flow.tables.display import Display, State, last_lines
from sb3_flow.tables.grid import Run, command_of, expand, processes, read_sweep, shell
from sb3_flow.zoo.compilation import GAIN, would_pay
from sb3_flow.zoo.configs import ZOO_KEYS
from sb3_flow.zoo.registration import register
from sb3_flow.zoo.values import parse_value

Subparsers = Any  # argparse's own class for these is private

#: Interval in seconds at which the sweep checks its runs.
INTERVAL = 1.0
#: Ray reads these when it is imported or started: no usage statistics, no changes to visible devices for runs without GPU,
#: normal priority of trainings, and long timeouts, because trainings keep all cores busy.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}
#: Suffixes of files of data.
DATA_SUFFIXES = (".npz", ".hdf5", ".h5", ".zarr", ".parquet")
#: Seconds to wait for machines of a cluster.
PATIENCE = 60.0
#: Advice for clusters that cannot be reached.
TOKEN = (
    "Check the address, and that `ray start` runs there. If Ray uses a token on some machines only, copy ~/.ray/auth_token to "
    "all of them, or set RAY_AUTH_MODE=disabled on all of them before `ray start` and before the sweep."
)
#: Number of attempts to start Ray, which times out after 30 seconds; that is short on a busy machine.
START_ATTEMPTS = 4
#: Size of Ray's object store in bytes, about the smallest possible; it is not used.
OBJECT_STORE = 100 * 1024**2


def add_commands(subparsers: Subparsers) -> None:
    """
    Add the command to a parser.

    :param subparsers: Return value of ``add_subparsers``
    """
    command = subparsers.add_parser(
        "sweep",
        help="run a table of algorithms, tasks and seeds",
        description="Run all algorithms of a file on all its tasks with all its seeds. If it is started again, it skips "
        "finished runs and resumes the others.",
    )
    command.add_argument("file", type=Path, metavar="FILE.yml", help="file of the sweep; docs/sweeps.md has its format")
    command.add_argument("--output", type=Path, help="folder for the results, instead of the file's")
    command.add_argument("--address", help="address of a Ray cluster (default: this machine's cores)")
    command.add_argument("--dry-run", action="store_true", help="print the commands of all runs without starting them")
    command.add_argument("--cpus-per-run", type=_positive, metavar="N", help="cores and threads of each run")
    command.add_argument("--gpus-per-run", type=_not_negative, metavar="N", help="GPUs of each run; 0.5: two share one")
    command.add_argument("--max-retries", type=int, default=3, metavar="N", help="restarts after crashes (default: 3)")
    command.set_defaults(run=_run)


def _positive(text: str) -> float:
    if _number(text) <= 0:
        raise argparse.ArgumentTypeError("it must be above 0")
    return float(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _not_negative(text: str) -> float:
    if _number(text) < 0:
        raise argparse.ArgumentTypeError("it must not be negative")
    return float(text)


def _run(options: argparse.Namespace) -> None:
    if options.max_retries < 0:
        raise ValueError(f"--max-retries is {options.max_retries}; it must be at least 0.")
    runs = list_runs(options.file, options.output, options.cpus_per_run, options.gpus_per_run)
    finished = check_folders(runs)
    advise(options.file, runs)
    for message in missing_datasets([run for run in runs if run not in finished]):
        print(f"Will fail: {message}", file=sys.stderr)
    if options.dry_run:
        print(f"# {len(runs)} runs, {len(finished)} of them finished")
        for run in runs:
            if run in finished:
                print(f"# {run}\n# finished: {run.shell}")
        for group in processes([run for run in runs if run not in finished]):
            print(*(f"# {run}" for run in group), shell(command_of(group)), sep="\n")
        return
    failed = Sweep(runs, finished, options.max_retries).run(options.address)
    for state in failed:
        print(f"\nFailed: {state.run}: {state.message}\n  {state.run.folder / supervisor.LOG} ends with", file=sys.stderr)
        print("\n".join(f"  | {line}" for line in last_lines(state.run.folder, 15)), file=sys.stderr)
    if failed:
        print(f"\n{len(failed)} of {len(runs)} runs failed. Run the same command to start them again.", file=sys.stderr)
        raise SystemExit(1)


def list_runs(file: Path, output: Path | None = None, cpus: float | None = None, gpus: float | None = None) -> list[Run]:
    """
    List the runs of a file, for all algorithms of RL Zoo and this package.

    :param file: The file of a sweep
    :param output: Folder of the results, instead of that of the file
    :param cpus: Cores of each run, instead of those of the file
    :param gpus: GPUs of each run, instead of those of the file
    :return: The runs
    :raises ValueError: If the file is invalid.
    :raises ImportError: If RL Zoo is not installed.
    """
    register()
    algorithms = require("rl_zoo3.utils", "zoo", "A sweep").ALGOS
    hyperparameters = {name: _hyperparameters(cls) for name, cls in algorithms.items()}
    return expand(read_sweep(file), file, hyperparameters, output, cpus, gpus, algorithms)


def advise(file: Path, runs: Sequence[Run]) -> None:
    """
    Print advice to compile updates, if a run is long and nothing says whether to compile them. An algorithm's own
    configuration could, so there is none with ``conf_file``. There is none for an algorithm that has results, either: its
    other runs should have the same settings, and the sweep would refuse to change those of runs with results.

    :param file: The file of the sweep
    :param runs: All of its runs
    """
    algorithms = require("rl_zoo3.utils", "zoo", "A sweep").ALGOS
    long = []
    for run in runs:
        given = any(argument.startswith(("compile:", "--conf-file")) for argument in run.command)
        device = "cpu" if "--device=cpu" in run.command else "other"
        if would_pay(algorithms[run.algo], run.timesteps, device, given or None):
            long.append(run.algo)
    started = {run.algo for run in runs if has_results(run.folder)}
    if names := [name for name in dict.fromkeys(long) if name not in started]:
        print(f"Long runs: `compile: true` for {', '.join(names)} in {file} {GAIN}.", file=sys.stderr)


def missing_datasets(runs: Sequence[Run]) -> list[str]:
    """
    Find datasets that do not exist, so that it is known at the start instead of hours later: files, and those that this
    package collects. Runs with other data can be trained meanwhile.

    :param runs: The runs to start
    :return: For each dataset the first run that needs it, and what is missing
    """
    messages: dict[str, str] = {}
    for run in runs:
        for argument in run.command:
            if not argument.startswith("dataset:"):
                continue
            value = parse_value(argument.partition(":")[2])
            source = value.get("source") if isinstance(value, dict) else value
            if isinstance(source, str) and source not in messages and _is_missing(source):
                try:
                    load_dataset(source, run.env)
                except DatasetError as error:
                    messages[source] = f"{run}: {error}"
    return list(messages.values())


def _is_missing(source: str) -> bool:
    if source in RECIPES:
        return not (RECIPES[source].directory / f"{source}.npz").exists()
    return Path(source).suffix in DATA_SUFFIXES and not Path(source).exists()


def _hyperparameters(cls: type) -> dict[str, Any]:
    """The keys of a configuration of an algorithm, with their type hints."""
    hints = {key: hint for key, hint in hints_of(cls).items() if not key.startswith("_")}
    former = {old: hints.get(new, Any) for old, new in former_names_of(cls).items()}
    return {**dict.fromkeys(ZOO_KEYS, Any), **former, **hints}


def check_folders(runs: Sequence[Run]) -> set[Run]:
    """
    Check the folders of runs before the sweep starts.

    :param runs: The runs
    :return: The finished runs
    :raises ValueError: If the folder of a run contains other results.
    """
    finished = set()
    for run in runs:
        record = supervisor.read_record(run.folder)
        if record is None:
            others = {path.name for path in run.folder.glob("*")} - {supervisor.LOCK, supervisor.LOG}
            if others:
                raise ValueError(
                    f"{run.folder} contains results that are not from a sweep. Move them, or pass another --output."
                )
            continue
        then, now = (supervisor.what_is_computed(command) for command in (record["command"], run.command))
        if then != now and (record.get("finished") or has_results(run.folder)):
            before = " ".join(argument for argument in then if argument not in now) or "none of these"
            after = " ".join(argument for argument in now if argument not in then) or "none of these"
            raise ValueError(
                f"{run.folder} has results with other settings: {before}; now: {after}. Move it, or pass another --output."
            )
        if record.get("finished"):
            finished.add(run)
    return finished


def has_results(folder: Path) -> bool:
    """
    Whether a run has results. Without results, it may be started again with other settings.

    :param folder: The folder of the run
    :return: True if it has an evaluation or a checkpoint
    """
    return (folder / "evaluations.npz").exists() or latest_checkpoint(folder) is not None


class Sweep:
    """
    Start runs, monitor them, and restart runs that crashed.

    :param runs: The runs
    :param finished: Finished runs, which are skipped
    :param max_retries: Number of restarts of a run that crashed
    """

    def __init__(self, runs: Sequence[Run], finished: set[Run], max_retries: int = 3) -> None:
        self.states = [State(run, "done" if run in finished else "waiting") for run in runs]
        self.max_retries = max_retries
        self.name = uuid.uuid4().hex
        self.display = Display(self.states)
        #: The states of the runs of each process.
        self.pending: dict[Any, list[State]] = {}

    def run(self, address: str | None = None) -> list[State]:
        """
        Run until all have finished or failed. An interrupt stops all trainings first.

        :param address: Address of a Ray cluster; None: Ray on this machine, until the sweep ends
        :return: The states of the runs that failed
        :raises ImportError: If Ray is not installed.
        :raises ValueError: If a run needs more resources than this machine has.
        """
        waiting = [state for state in self.states if state.status == "waiting"]
        if waiting:
            ray = start_ray(address)
            before = signal.signal(signal.SIGTERM, _interrupt)
            try:
                runs = [state.run for state in waiting]
                if address is None:
                    check_resources(runs, ray.cluster_resources())
                else:
                    await_resources(runs, ray.nodes)
                with self.display:
                    self._run(ray, waiting)
            finally:
                signal.signal(signal.SIGTERM, before)
                self._stop(ray)
        else:
            print(self.display.summary())
        return [state for state in self.states if state.status == "failed"]

    def _run(self, ray: Any, waiting: Sequence[State]) -> None:
        ray.cloudpickle.register_pickle_by_value(supervisor)
        task = ray.remote(supervisor.supervise)
        states = {state.run: state for state in waiting}
        for group in processes(list(states)):
            self._submit(task, [states[run] for run in group])
        while self.pending:
            ready, _ = ray.wait(list(self.pending), num_returns=len(self.pending), timeout=INTERVAL)
            for reference in ready:
                self._collect(ray, task, reference)
            for state in itertools.chain.from_iterable(self.pending.values()):
                if state.status == "waiting" and (supervisor.read_record(state.run.folder) or {}).get(
                    "sweep"
                ) == self._name_of(state):
                    state.status = "running"
                    self.display.say(f"started: {state.run}")
            self.display.update()

    def _name_of(self, state: State) -> str:
        return f"{self.name}-{state.attempts}"

    def _submit(self, task: Any, states: list[State]) -> None:
        """Start a process, which trains one run or several seeds."""
        for state in states:
            state.status = "waiting"
            state.attempts += 1
        runs = [state.run for state in states]
        run = runs[0]
        resources = {"num_cpus": run.cpus, "num_gpus": run.gpus, "max_retries": 0, "name": str(run)}
        commands = {str(run.folder): run.command for run in runs}
        arguments = commands, command_of(runs), os.getcwd(), max(1, int(run.cpus)), self._name_of(states[0])
        self.pending[task.options(**resources).remote(*arguments)] = states

    def _collect(self, ray: Any, task: Any, reference: Any) -> None:
        """Take the result of a task that has ended."""
        states = self.pending.pop(reference)
        crashed = True
        try:
            code = ray.get(reference)
            message = f"the training ended with exit code {code}"
            if code < 0:
                message = f"the training was killed by {signal.Signals(-code).name}"
            crashed = code < 0
        except ray.exceptions.RayTaskError as error:
            code, crashed = 1, False
            message = str(error.cause)
        except ray.exceptions.RayError as error:
            code = 1
            message = f"the worker crashed ({type(error).__name__})"
        alone = code != 0 and not crashed and len(states) > 1
        again = code != 0 and crashed and states[0].attempts <= self.max_retries
        for state in states:
            state.message = message
            if code == 0:
                state.status = "done"
                self.display.say(f"done: {state.run}")
            elif again:
                self.display.say(f"restarted: {state.run}: {message}; it resumes from its last checkpoint")
            elif alone:
                self.display.say(f"restarted: {state.run}, in a process of its own: {_last_line(states) or message}")
            else:
                state.status = "failed"
                self.display.say(f"failed: {state.run}: {message}")
        for group in [states] if again else [[state] for state in states] if alone else []:
            self._submit(task, group)

    def _stop(self, ray: Any) -> None:
        """Stop running trainings, and Ray if it was started here."""
        try:
            if self.pending:
                print("Stopping. The same command resumes from the last checkpoints.", file=sys.stderr, flush=True)
                for reference in self.pending:
                    ray.cancel(reference)
                ray.wait(list(self.pending), num_returns=len(self.pending), timeout=supervisor.PATIENCE)
        finally:
            ray.shutdown()


def start_ray(address: str | None) -> Any:
    """
    Start Ray on this machine, or connect to a cluster, without Ray's own output.

    :param address: Address of the cluster; None: this machine
    :return: The module ``ray``
    :raises ImportError: If Ray is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # A token for this process alone: Ray would write one to the home folder, and later use it for clusters without one.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=os.environ.get("RAY_AUTH_TOKEN", uuid.uuid4().hex))
    ray = require("ray", "sweep", "`sb3-flow sweep`")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"Cannot connect to a Ray cluster at {address}: {' '.join(str(error).split())}. {TOKEN}"
            ) from error
        return ray
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # "local": do not connect to a cluster that runs on this machine.
            # Ray counts all cores of the machine, also those that this process may not use.
            ray.init(address="local", num_cpus=cores(), include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
            break
        except Exception as error:  # Ray has no specific class for this error
            ray.shutdown()
            if attempt == START_ATTEMPTS or "timed out" not in str(error):
                raise
            print(f"Ray did not start in time; trying again ({error})", file=sys.stderr, flush=True)
    return ray


def check_resources(runs: Sequence[Run], available: Mapping[str, float]) -> None:
    """
    Reject runs that would never start.

    :param runs: The runs
    :param available: Available resources by Ray's names
    :raises ValueError: If a run needs more.
    """
    for run in runs:
        for name, wanted in (("CPU", run.cpus), ("GPU", run.gpus)):
            there = available.get(name, 0)
            if wanted > there:
                option = f"--{name.lower()}s-per-run"
                raise ValueError(f"{run} needs {wanted:g} {name}s; this machine has {there:g}. Reduce {option}.")


def await_resources(runs: Sequence[Run], nodes: Callable[[], list[dict[str, Any]]], patience: float = PATIENCE) -> None:
    """
    Wait until a machine of the cluster is large enough for each run: machines may still be joining.

    :param runs: The runs
    :param nodes: Function that lists the machines, as ``ray.nodes``
    :param patience: Seconds to wait
    :raises ValueError: If a run needs more than any machine has.
    """
    deadline, said = time.monotonic() + patience, False
    while True:
        machines = [node["Resources"] for node in nodes() if node["Alive"]]
        large = [run for run in runs if not any(fits(run, machine) for machine in machines)]
        if not large:
            return
        sizes = ", ".join(sorted({f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines})) or "none"
        message = (
            f"{large[0]} needs {large[0].cpus:g} CPUs and {large[0].gpus:g} GPUs of one machine; the cluster has {sizes}."
        )
        if time.monotonic() > deadline:
            raise ValueError(f"{message} Reduce --cpus-per-run or --gpus-per-run, or add a larger machine.")
        if not said:
            print(f"{message} Waiting {patience:g} seconds for another machine.", file=sys.stderr, flush=True)
            said = True
        time.sleep(min(INTERVAL, patience))


def fits(run: Run, machine: Mapping[str, float]) -> bool:
    """Whether a machine is large enough for a run."""
    return run.cpus <= machine.get("CPU", 0) and run.gpus <= machine.get("GPU", 0)


def _last_line(states: Sequence[State]) -> str:
    """The last line of the log of a process."""
    return "".join(last_lines(states[0].run.folder, 1))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
