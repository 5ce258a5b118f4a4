"""
The control loop of `sb3_flow.deploy` with simulated latencies of 0, 1, 3 and 8 control steps, on Push-T and on an arm task.

    sb3-flow datasets collect pusht --episodes 400
    sb3-flow datasets collect cube-single-expert-task2 --episodes 200
    python benchmarks/control_loop.py train --task pusht --algo streaming_flow
    python benchmarks/control_loop.py evaluate --task pusht --algo streaming_flow --output results/control_loop
    python benchmarks/control_loop.py jitter --seconds 60 --output results/control_loop
    python benchmarks/control_loop.py plot --output results/control_loop

Tasks: `pusht`, `cube`. Algorithms: `streaming_flow`, `chunk_flow`. Results of evaluations and of jitter are appended to CSV files;
an evaluation that is already there is not repeated, so that a stopped command continues when it is run again.
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
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import load_dataset
from sb3_flow.deploy import ControlLoop, OnnxPolicy
from sb3_flow.deploy.control_loop import Plan
from sb3_flow.envs.absolute_action import AbsoluteActionWrapper, absolute_dataset
from sb3_flow.envs.pusht import PushTMeasures

LATENCIES = (0, 1, 3, 8)
#: First seed of the evaluation. Seeds of demonstrations have ten digits.
FIRST_SEED = 10_000
ALGORITHMS: dict[str, Any] = {"streaming_flow": StreamingFlow, "chunk_flow": ChunkFlow}
#: Id of the environment, name of the dataset, and per algorithm: number of updates and arguments.
TASKS: dict[str, tuple[str, str, dict[str, tuple[int, dict[str, Any]]]]] = {
    "pusht": (
        "gym_pusht/PushT-v0",
        "pusht",
        {
            "streaming_flow": (20_000, {"policy_kwargs": {"net_arch": [256] * 3}, "sigma_0": 0.1, "start_from": [0, 1]}),
            "chunk_flow": (15_000, {"policy_kwargs": {"net_arch": [512] * 3}}),
        },
    ),
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


def make(task: str) -> gym.Env[Any, Any]:
    """The environment of a task."""
    env = make_env(TASKS[task][0])
    return PushTMeasures(env) if task == "pusht" else AbsoluteActionWrapper(env)


def train(options: argparse.Namespace) -> None:
    """Train a model and save it."""
    _, name, algorithms = TASKS[options.task]
    updates, arguments = algorithms[options.algo]
    source = str(options.data / f"{name}.npz") if options.data else name
    data = absolute_dataset(source) if options.task == "cube" else load_dataset(source)
    common: dict[str, Any] = {"learning_rate": 1e-3, "normalize_observations": True, "seed": options.seed, "device": "cpu"}
    model = ALGORITHMS[options.algo]("FlowPolicy", make(options.task), dataset=data, **common, **arguments)
    start = time.perf_counter()
    model.learn(options.updates or updates)
    model.save(path_of(options))
    print(f"{options.task} {options.algo}: {time.perf_counter() - start:.0f} s")


def path_of(options: argparse.Namespace) -> pathlib.Path:
    """The file of a model."""
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
    for steps in itertools.count(1):
        plan = loop.current
        action = loop.act(observation)
        if plan is not None and loop.current is not plan:
            jumps.append(float(np.max(np.abs(action - previous) / (space.high - space.low))))
        previous = action
        observation, _, terminated, truncated, info = env.step(action)
        success = success or bool(info.get("is_success", info.get("success", False)))
        if terminated or truncated:
            break
    measures = info.get("measures", {})
    return {"success": float(success), "steps": steps, "jump": float(np.mean(jumps or [0.0])), **measures}


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate a model with all executions and latencies."""
    th.set_num_threads(1)
    model = ALGORITHMS[options.algo].load(path_of(options), device="cpu")
    env, file = make(options.task), options.output / "episodes.csv"
    done = {(row["task"], row["algorithm"], row["execution"], int(row["latency"]), int(row["seed"])) for row in read(file)}
    for latency, (execution, (loop_class, condition)) in itertools.product(options.latencies, EXECUTIONS.items()):
        th.manual_seed(0)
        if latency == 0 and execution in ("naive asynchronous", "skipping"):
            continue  # the same as synchronous execution
        deterministic = options.algo == "streaming_flow"  # as published; flows sample
        loop = loop_class(model, latency=latency, condition=condition, deterministic=deterministic, max_late=10**9)
        for seed in range(FIRST_SEED, FIRST_SEED + options.episodes):
            key = (options.task, options.algo, execution, latency, seed)
            if key not in done:
                th.manual_seed(seed)
                found = run_episode(env, loop, seed)
                names = ("task", "algorithm", "execution", "latency", "seed")
                append(file, dict(zip(names, key, strict=True)) | {"score": "", "coverage": ""} | found)


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
    parser.add_argument("command", choices=["train", "evaluate"])
    parser.add_argument("--task", choices=list(TASKS), default="pusht")
    parser.add_argument("--algo", choices=list(ALGORITHMS), default="streaming_flow")
    parser.add_argument("--data", type=pathlib.Path, help="folder of the datasets")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("runs/control_loop"), help="folder of the models")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/control_loop"), help="folder of the results")
    parser.add_argument("--updates", type=int, help="number of updates")
    parser.add_argument("--seed", type=int, default=0, help="seed of training")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--latencies", type=int, nargs="+", default=LATENCIES)
    options = parser.parse_args()
    {"train": train, "evaluate": evaluate}[options.command](options)


if __name__ == "__main__":
    main()
