"""
The control loop of `sb3_flow.deploy` with simulated latencies of 0, 1, 3 and 8 control steps, on Push-T and on an arm task.

    sb3-flow datasets collect cube-single-expert-task2 --episodes 200
    python benchmarks/control_loop.py train --task cube --algo streaming_flow
    python benchmarks/control_loop.py evaluate --task cube --algo streaming_flow --output results/control_loop
    python benchmarks/control_loop.py evaluate --task pusht --algo streaming_flow --output results/control_loop --model FILE
    python benchmarks/control_loop.py jitter --task cube --output results/control_loop
    python benchmarks/control_loop.py report --output results/control_loop

Tasks: `pusht`, with a model of results/imitation, and `cube`. Algorithms: `streaming_flow`, `chunk_flow`. Results are appended
to CSV files. Episodes that are already there are not repeated: a stopped command continues when it is run again.
"""

import argparse
import csv
import itertools
import pathlib
import tempfile
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_flow import StreamingFlow
from sb3_flow.baselines import ChunkFlow
from sb3_flow.common.checkpoints import TrainingCheckpoint, latest_checkpoint
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import load_dataset
from sb3_flow.deploy import ControlLoop, OnnxPolicy
from sb3_flow.deploy.control_loop import Plan
from sb3_flow.envs.absolute_action import AbsoluteActionWrapper, absolute_dataset
from sb3_flow.envs.pusht import PushTMeasures

LATENCIES = (0, 1, 3, 8)
FREQUENCY = 50
#: Columns that identify an episode.
KEYS = ("task", "algorithm", "execution", "latency", "seed")
#: First seed of the evaluation. Seeds of demonstrations have ten digits.
FIRST_SEED = 10_000
ALGORITHMS: dict[str, Any] = {"streaming_flow": StreamingFlow, "chunk_flow": ChunkFlow}
#: Id of the environment, name of the dataset, and per algorithm: number of updates and arguments.
TASKS: dict[str, tuple[str, str, dict[str, tuple[int, dict[str, Any]]]]] = {
    "pusht": ("gym_pusht/PushT-v0", "pusht", {}),
    "cube": (
        "cube-single-singletask-task2-v0",
        "cube-single-expert-task2",
        {
            "streaming_flow": (10_000, {"policy_kwargs": {"net_arch": [256] * 3}, "sigma_0": 0.1}),
            "chunk_flow": (20_000, {"policy_kwargs": {"net_arch": [256] * 3}}),
        },
    ),
}


class Naive(ControlLoop):
    """A new plan replaces the old one as soon as it is ready, and is executed from its first action."""

    def _is_ready(self, plan: Plan) -> bool:
        ready = super()._is_ready(plan)
        if ready:
            plan.start = self.executed
        return ready


class Synchronous(ControlLoop):
    """The robot holds its last target while a plan is made."""

    def _planned_action(self) -> np.ndarray | None:
        if self.pending is not None and not self._is_ready(self.pending):
            return None
        return super()._planned_action()


#: The ways to execute plans: the loop, and whether plans are conditioned.
EXECUTIONS: dict[str, tuple[type[ControlLoop], bool]] = {
    "synchronous": (Synchronous, False),
    "naive asynchronous": (Naive, False),
    "skipping": (ControlLoop, False),
    "real-time chunking": (ControlLoop, True),
}

#: Colors that people with color blindness can tell apart (Okabe and Ito, 2008), and markers.
COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00")
STYLES = dict(zip(EXECUTIONS, zip(COLORS, "osD^", strict=False), strict=True))
#: Styles of lines of the jitter.
LINES = {
    "only waiting": ":",
    **{f"{algo}, {runner}": line for algo in ALGORITHMS for runner, line in (("PyTorch", "-"), ("ONNX Runtime", "--"))},
}


def make(task: str) -> gym.Env[Any, Any]:
    """The environment of a task."""
    env = make_env(TASKS[task][0])
    return PushTMeasures(env) if task == "pusht" else AbsoluteActionWrapper(env)


def train(options: argparse.Namespace) -> None:
    """Train a model and save it. It continues from its last checkpoint."""
    _, name, algorithms = TASKS[options.task]
    if options.algo not in algorithms:
        raise SystemExit("Models for Push-T are trained by results/imitation/sweep.yml; pass one to `evaluate` by --model.")
    updates, arguments = algorithms[options.algo]
    source = str(options.data / f"{name}.npz") if options.data else name
    data = absolute_dataset(source) if options.task == "cube" else load_dataset(source)
    folder = path_of(options).with_suffix("")
    if latest_checkpoint(folder):
        model = ALGORITHMS[options.algo].resume(folder, make(options.task), dataset=data)
    else:
        common: dict[str, Any] = {"learning_rate": 1e-3, "normalize_observations": True, "seed": options.seed, "device": "cpu"}
        model = ALGORITHMS[options.algo]("FlowPolicy", make(options.task), dataset=data, **common, **arguments)
    model.learn(options.updates or updates, callback=TrainingCheckpoint(folder, save_freq=1000))
    model.save(path_of(options))


def path_of(options: argparse.Namespace) -> pathlib.Path:
    """The file of a model."""
    if options.model:
        return pathlib.Path(options.model)
    options.models.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(options.models / f"{options.task}_{options.algo}.zip")


def run_episode(env: gym.Env[Any, Any], loop: ControlLoop, seed: int) -> dict[str, float]:
    """
    Run one episode.

    :return: Success; the number of steps; the mean change of the action where plans change (largest component, in units of the
        action space); and for Push-T the measures
    """
    observation, info = env.reset(seed=seed)
    loop.reset()
    space: Any = env.action_space
    previous, jumps, success = None, [], False
    done = False
    while not done:
        plan = loop.current
        action = loop.act(observation)
        if plan is not None and loop.current is not plan:
            jumps.append(float(np.max(np.abs(action - previous) / (space.high - space.low))))
        previous = action
        observation, _, terminated, truncated, info = env.step(action)
        success = success or bool(info.get("is_success", info.get("success", False)))
        done = terminated or truncated
    measures = info.get("measures", {})
    return {"success": float(success), "steps": loop.step, "jump": float(np.mean(jumps or [0.0])), **measures}


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate a model with all executions and latencies."""
    th.set_num_threads(1)
    model = ALGORITHMS[options.algo].load(path_of(options), device="cpu")
    env, file = make(options.task), options.output / "episodes.csv"
    done = {(row["task"], row["algorithm"], row["execution"], int(row["latency"]), int(row["seed"])) for row in read(file)}
    deterministic = options.algo == "streaming_flow"  # as published; flows sample
    loops: dict[tuple[str, int], ControlLoop] = {}
    for latency, (execution, (loop, condition)) in itertools.product(options.latencies, EXECUTIONS.items()):
        if latency or execution in ("synchronous", "real-time chunking"):  # the others are the same without latency
            arguments = {"latency": latency, "condition": condition, "deterministic": deterministic, "max_late": 10**9}
            loops[execution, latency] = loop(model, **arguments)
    for seed, (execution, latency) in itertools.product(range(FIRST_SEED, FIRST_SEED + options.episodes), loops):
        key = (options.task, options.algo, execution, latency, seed)
        if key not in done:
            th.manual_seed(seed)
            found = run_episode(env, loops[execution, latency], seed)
            append(file, dict(zip(KEYS, key, strict=True)) | {"score": "", "coverage": ""} | found)


def jitter(options: argparse.Namespace) -> None:
    """Record the times between actions: of a loop that only waits, and of loops with PyTorch and with ONNX Runtime."""
    th.set_num_threads(1)
    (options.output / "intervals.csv").unlink(missing_ok=True)  # of an earlier recording
    observation = make(options.task).reset(seed=0)[0]
    loops: dict[str, Any] = {"only waiting": None}
    for algo, algorithm in ALGORITHMS.items():
        options.algo = algo
        model = algorithm.load(path_of(options), device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            model.export(f"{folder}/policy.onnx", real_time=True)
            loops |= {f"{algo}, PyTorch": model, f"{algo}, ONNX Runtime": OnnxPolicy(f"{folder}/policy.onnx")}
    for name, policy in loops.items():
        times: list[float] = []
        with ControlLoop(policy or Nothing(), frequency=FREQUENCY) as loop:
            for _ in loop.actions(lambda: observation):
                times.append(time.perf_counter())
                if len(times) > options.seconds * FREQUENCY:
                    break
        for interval in np.diff(times[10:]):
            append(options.output / "intervals.csv", {"loop": name, "milliseconds": f"{1e3 * interval:.4f}"})
        print(f"{name}: {loop.n_late} late actions; delays of plans up to {max(loop.delays)} steps", flush=True)


class Nothing:
    """A planner that needs no time."""

    prediction_horizon, n_action_steps, n_obs_steps, action_shape, conditions_plans = 16, 8, 1, (1,), False

    def check(self, observation: Any) -> None:
        pass

    def plan(self, *arguments: Any) -> np.ndarray:
        return np.zeros((16, 1))


def report(options: argparse.Namespace) -> None:
    """Print the tables, and draw the picture."""
    rows, intervals = read(options.output / "episodes.csv"), read(options.output / "intervals.csv")
    panels = sorted({(row["task"], row["algorithm"]) for row in rows}, reverse=True)
    for task, algo in panels:
        print(f"\n| {task}, {algo} | execution | {' | '.join(f'{latency} steps' for latency in LATENCIES)} |")
        print("| --- " * (2 + len(LATENCIES)) + "|")
        for measure in ["success", *(["score", "coverage"] if task == "pusht" else ["steps"]), "jump"]:
            digits = 0 if measure == "steps" else 2
            for execution in EXECUTIONS:
                cells = [interval_of(values(rows, task, algo, execution, latency, measure)) for latency in LATENCIES]
                texts = [f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" for mean, low, high in cells]
                print(f"| {measure} | {execution} | {' | '.join(texts)} |")
    print("\n| loop | actions | median | 99 % | largest |\n| --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(row["loop"] for row in intervals):
        errors = np.abs([float(row["milliseconds"]) - 1e3 / FREQUENCY for row in intervals if row["loop"] == name])
        print(f"| {name} | {len(errors)} | {np.median(errors):.2f} | {np.quantile(errors, 0.99):.2f} | {errors.max():.2f} |")
    draw(rows, intervals, panels, options.output / "control_loop.png")


def values(rows: list[dict[str, str]], task: str, algo: str, execution: str, latency: int, measure: str) -> list[float]:
    """A measure of the episodes of a cell. Without latency, asynchronous execution without conditions is synchronous."""
    if latency == 0 and execution != "real-time chunking":
        execution = "synchronous"
    cell = task, algo, execution, str(latency)
    return [float(row[measure]) for row in rows if tuple(row[key] for key in KEYS[:4]) == cell]


def interval_of(numbers: list[float]) -> tuple[float, float, float]:
    """The mean and its 95 % bootstrap interval."""
    if not numbers:
        return np.nan, np.nan, np.nan
    means = np.random.default_rng(0).choice(numbers, (2000, len(numbers))).mean(axis=1)
    return float(np.mean(numbers)), *(float(bound) for bound in np.quantile(means, [0.025, 0.975]))


def draw(rows: list[dict[str, str]], intervals: list[dict[str, str]], panels: list[tuple[str, str]], file: Any) -> None:
    """A panel for each task and algorithm, and one with the jitter."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = len(panels) + 1
    figure, axes = plt.subplots(2, columns, figsize=(4 * columns + 0.6, 7.4), layout="constrained", squeeze=False)
    labels = {
        "success": "Success rate",
        "jump": "Change of the action where plans change\n[fraction of the action space]",
    }
    for column, (task, algo) in enumerate(panels):
        for axis, measure in zip(axes[:, column], ["success", "jump"], strict=True):
            for number, (execution, (color, marker)) in enumerate(STYLES.items()):
                found = np.array([interval_of(values(rows, task, algo, execution, each, measure)) for each in LATENCIES])
                shifted = np.array(LATENCIES) + 0.12 * (number - 1.5)
                errors = np.abs(found[:, 1:].T - found[:, 0])
                axis.errorbar(shifted, found[:, 0], errors, color=color, marker=marker, capsize=3, label=execution)
            title = {"pusht": "Push-T", "cube": "Cube (robot arm)"}[task]
            axis.set(title=f"{title}, {algo.replace('_', ' ')}", xlabel="Latency [control steps]", xticks=LATENCIES)
            axis.set(ylabel=labels[measure], ylim=(0, None if measure == "jump" else 1.03))
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=9)
    for (name, style), color in zip(LINES.items(), COLORS, strict=False):
        errors = np.sort(np.abs([float(row["milliseconds"]) - 1e3 / FREQUENCY for row in intervals if row["loop"] == name]))
        if len(errors):
            axes[0, -1].plot(
                errors, 1 - np.arange(len(errors)) / len(errors), style, color=color, label=name.replace("_", " ")
            )
    axes[0, -1].set(title=f"Jitter of actions at {FREQUENCY} Hz", xscale="log", yscale="log", xlim=(1e-2, None))
    axes[0, -1].set(
        xlabel="Deviation of the time between two actions [ms]", ylabel="Fraction of actions with larger deviations"
    )
    axes[0, -1].grid(alpha=0.3)
    axes[1, -1].legend(*axes[0, -1].get_legend_handles_labels(), loc="upper left", title="Jitter of actions")
    axes[1, -1].set_axis_off()
    figure.savefig(file, dpi=110)


def read(file: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if there is no file."""
    return list(csv.DictReader(file.open(encoding="utf-8", newline=""))) if file.is_file() else []


def append(file: pathlib.Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.is_file()
    with file.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "evaluate", "jitter", "report"])
    parser.add_argument("--task", choices=list(TASKS), default="pusht")
    parser.add_argument("--algo", choices=list(ALGORITHMS), default="streaming_flow")
    parser.add_argument("--data", type=pathlib.Path, help="folder of the datasets")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("runs/control_loop"), help="folder of the models")
    parser.add_argument("--model", type=pathlib.Path, help="file of the model, instead of the one that `train` writes")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/control_loop"), help="folder of the results")
    parser.add_argument("--updates", type=int, help="number of updates")
    parser.add_argument("--seed", type=int, default=0, help="seed of training")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--latencies", type=int, nargs="+", default=LATENCIES)
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each loop whose jitter is recorded")
    options = parser.parse_args()
    {"train": train, "evaluate": evaluate, "jitter": jitter, "report": report}[options.command](options)


if __name__ == "__main__":
    main()
