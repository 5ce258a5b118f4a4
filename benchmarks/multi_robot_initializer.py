"""
Iterations of FlowOpt's safety filter by where it starts: from exact and inexact solutions, and from trained initializers.

    python benchmarks/multi_robot_initializer.py bounds --robots 8 16 --problems 60 --seeds 0 1 2 --output FILE.jsonl
    python benchmarks/multi_robot_initializer.py learned --robots 16 --problems 100 --seeds 0 1 2 --output FILE.jsonl
    python benchmarks/multi_robot_initializer.py show --output FILE.jsonl

`bounds` solves problems from noise, and starts the filter again for the same proposals at the solution plus a Gaussian error
of a given fraction of the root mean square displacement of each problem and mode. The multipliers are 0, those with which the
filter stays at the start ("matched"), or those of the solution ("exact").

`learned` trains a flow, and from its proposals the initializers of `VARIANTS`, for each seed. Imitation repeats a fixed set of
solved proposals; the rest is as in `FlowOpt`. All rows of a seed have the same problems, all but "cold" the same proposals. A
seed changes scenes, noise, networks and training. A problem that is not solved counts with all 160 iterations.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from scipy import stats

from sb3_flow import FlowOpt
from sb3_flow.flow_opt.symmetries import transform
from sb3_flow.planning import observations
from sb3_flow.planning.costs import noise, smoothness
from sb3_flow.planning.expert import solve
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import SafetyFilter
from sb3_flow.planning.scenes import Scenes, standard_limits, standard_obstacles

#: Scenes for measuring and for training have seeds from these numbers.
HELD_OUT, TRAINING = 1_000_000, 2_000_000
#: Standard deviation of noise as a proposal, in meters.
NOISE = 0.2
ERRORS = (0.1, 0.2, 0.35, 0.5)
#: Settings of the policy of each trained initializer.
VARIANTS: dict[str, dict[str, Any]] = {
    "flow + path": {"multipliers": "none"},
    "flow + path + multipliers": {"multipliers": "matched"},
}
#: The networks of ``zoo_configs`` for two cores.
NETWORKS = {"width": 64, "depth": 3, "attention_heads": 4, "initializer_width": 64, "initializer_depth": 2}


class Solved(NamedTuple):
    """Proposals, and the first certified plans that the filter finds from them, with its multipliers."""

    problems: Problems
    proposals: th.Tensor
    y: th.Tensor
    multipliers: th.Tensor

    def select(self, index: th.Tensor) -> "Solved":
        return Solved(self.problems.select(index), *(part[index] for part in self[1:]))


def sampled(robots: int, count: int, seed: int) -> tuple[Limits, Problems]:
    """Random scenes."""
    limits = standard_limits(robots)
    scenes = Scenes(limits, robots, standard_obstacles(robots), "mixed")
    return limits, scenes.sample(np.random.default_rng((seed, robots)), count)


@th.no_grad()
def solutions(filter_: SafetyFilter, problems: Problems, proposals: th.Tensor, iterations: int) -> Solved:
    """Solve proposals. Those that are not solved in these iterations are left out."""
    parts: list[Solved] = []
    for first in range(0, len(proposals), 64):
        rows = th.arange(first, min(first + 64, len(proposals)))
        mine, wanted = problems.select(rows), proposals[rows]
        scene, state, violation = filter_.begin(mine, wanted, wanted, th.zeros_like(wanted))
        for k in range(iterations + 1):
            found = (violation <= 0).nonzero().squeeze(1)
            if len(found):
                found = found[filter_.certificate.certify(mine.select(found), state.ahead[found]).safe]
            if len(found):
                parts.append(Solved(mine.select(found), wanted[found], state.ahead[found], state.multiplier[found]))
                done = th.zeros(len(wanted), dtype=th.bool).index_fill(0, found, True)
                left = (~done).nonzero().squeeze(1)
                mine, wanted, scene, state = mine.select(left), wanted[left], scene.select(left), state.select(left)
            if not len(wanted) or k == iterations:
                break
            state, violation = filter_.iterate(scene, state, *filter_.settings.at(k))
    solved = Problems(*(th.cat(column) for column in zip(*(part.problems for part in parts), strict=True)))
    return Solved(solved, *(th.cat(column) for column in zip(*(part[1:] for part in parts), strict=True)))


def figures(filter_: SafetyFilter, problems: Problems, proposals: th.Tensor, start: Any = None) -> dict[str, float]:
    """Run the filter, and summarize its iterations and plans."""
    began = time.process_time()
    result = filter_(problems, proposals, start)
    cpu, iterations, safe = time.process_time() - began, result.iterations.double(), result.safe
    cost = smoothness(problems, result.y, filter_.basis)[safe].mean().item() if safe.any() else math.nan
    return {
        "mean": iterations.mean().item(),
        "median": iterations.median().item(),
        "most": iterations.quantile(0.9).item(),
        "certified": safe.double().mean().item(),
        "smoothness": cost,
        "cpu_ms": 1000 * cpu / len(safe),
    }


def bounds(robots: int, count: int, seed: int) -> dict[str, dict[str, float]]:
    """From noise, and from its solutions with errors."""
    limits, problems = sampled(robots, count, HELD_OUT + seed)
    filter_ = SafetyFilter(limits, FilterSettings(samples=observations.solver_samples(limits)))
    proposals = noise(problems, filter_.basis, NOISE, th.Generator().manual_seed(seed))
    rows = {"cold": figures(filter_, problems, proposals)}
    solved = solutions(filter_, problems, proposals, filter_.settings.max_iterations)
    moved = solved.y - solved.proposals
    size, generator = moved.square().mean(dim=(1, 2), keepdim=True).sqrt(), th.Generator().manual_seed(seed)
    for error in (0.0, *ERRORS):
        y = solved.y + error * size * th.randn(moved.shape, generator=generator)
        starts = {"0": th.zeros_like(y), "matched": filter_.matching(y - solved.proposals), "exact": solved.multipliers}
        for name, multipliers in starts.items():
            label = f"path with an error of {100 * error:.0f} %, multipliers: {name}"
            rows[label] = figures(filter_, solved.problems, solved.proposals, (y, multipliers))
    rows["proposal, multipliers: exact"] = figures(
        filter_, solved.problems, solved.proposals, (solved.proposals, solved.multipliers)
    )
    return rows


def demonstrations(limits: Limits, problems: Problems, seed: int) -> dict[str, Any]:
    """Plans of the expert, with few proposals and little polishing, as a dataset."""
    filter_ = SafetyFilter(limits, FilterSettings(samples=observations.solver_samples(limits)))
    solved = solve(problems, filter_, 4, th.Generator().manual_seed(seed), polish_rounds=3)
    rows = problems.select(solved.problem)
    return {
        "observations": observations.observation(rows, limits),
        "actions": observations.actions(solved.y, limits, rows.robot_mask).numpy(),
        "terminations": np.ones(len(solved.y), dtype=bool),
        "truncations": np.zeros(len(solved.y), dtype=bool),
    }


def imitate(model: FlowOpt, solved: Solved, updates: int, batch: int) -> None:
    """Train the initializer on solved proposals, turned around at random."""
    policy = model.policy
    for i in range(updates):
        set_rate(model, i / updates)
        noise_ = model.draw_noise(batch)
        rows = solved.select(th.randint(len(solved.y), (batch,), generator=model.generator))
        turn = (policy.symmetries[noise_.symmetry], policy.parities, noise_.backwards)
        problems = transform(rows.problems, rows.y, *turn)[0]
        plans = [transform(rows.problems, y, *turn)[1] for y in rows[1:]]
        model.descend(model.start_loss, policy.optimizer, problems, *plans)


def unroll(model: FlowOpt, updates: int, batch: int) -> None:
    """Train the initializer through the filter."""
    for i in range(updates):
        set_rate(model, i / updates, 0.3)
        model.descend(model.unrolled_loss, model.policy.optimizer, model.sample_batch(batch), model.draw_noise(batch))


def set_rate(model: FlowOpt, done: float, share: float = 1.0) -> None:
    """Warm-up in a twentieth of a stage, then a cosine to zero."""
    rate = 2e-3 * share * min(1.0, 20 * done + 0.05) * (1 + math.cos(math.pi * done)) / 2
    for group in model.policy.optimizer.param_groups:
        group["lr"] = rate


def learned(robots: int, count: int, seed: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train a flow and initializers, and start the filter with them."""
    limits, problems = sampled(robots, count, HELD_OUT + seed)
    training = sampled(robots, arguments.scenes, TRAINING + seed)[1]
    env = gym.make("sb3_flow/MultiRobot2D-v0", num_robots=robots)
    data = demonstrations(limits, training.select(th.arange(arguments.expert_scenes)), seed)

    def make(**kwargs: Any) -> FlowOpt:
        settings: dict[str, Any] = {"batch_size": 64, "learning_rate": 1e-3, "tau": 0.01, "seed": seed, "device": "cpu"}
        settings |= {"initializer_batch_size": arguments.batch, "unrolled_iterations": arguments.unrolled}
        return FlowOpt("FlowPolicy", env, dataset=data, policy_kwargs={**NETWORKS, **kwargs}, **settings)

    flow = make()
    flow.flow_fraction = 1.0
    flow.learn(arguments.flow_updates)
    policy = flow.policy
    policy.set_training_mode(False)
    generator = th.Generator().manual_seed(seed)
    filter_, many = policy.filter, training.repeat(arguments.copies)
    with th.no_grad():
        x = th.randn(len(many.start), policy.action_dim, generator=generator)
        solved = solutions(filter_, many, policy.propose(many, x), arguments.imitated)
        proposals = policy.propose(problems, th.randn(count, policy.action_dim, generator=generator))
    straight = noise(problems, filter_.basis, NOISE, generator)
    rows = {"cold": figures(filter_, problems, straight), "flow": figures(filter_, problems, proposals)}
    for name, kwargs in VARIANTS.items():
        began = time.process_time()
        model = make(**kwargs)
        for part in ("flow", "flow_average"):
            getattr(model.policy, part).load_state_dict(getattr(policy, part).state_dict())
        imitate(model, solved, arguments.imitation_updates, 64)
        unroll(model, arguments.unrolled_updates, arguments.batch)
        spent = time.process_time() - began
        with th.no_grad():
            start = model.policy.starts(problems, proposals)
        rows[name] = {**figures(filter_, problems, proposals, start), "training_s": spent}
        if model.policy.multipliers != "none":
            zero = th.zeros_like(proposals)
            rows["its path alone"] = figures(filter_, problems, proposals, (start[0], zero))
            rows["its multipliers alone"] = figures(filter_, problems, proposals, (proposals, start[1]))
    return rows


def interval(values: list[float]) -> str:
    """Mean, and 95 % interval of Student's t over seeds."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return f"{mean:.1f}"
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return f"{mean:.1f} ({mean - half:.1f}-{mean + half:.1f})"


def show(file: Path) -> str:
    """Results of a file as Markdown tables."""
    tables: dict[tuple[str, int], dict[str, list[dict[str, float]]]] = {}
    for line in file.read_text().splitlines():
        run = json.loads(line)
        table = tables.setdefault((run["command"], run["robots"]), {})
        for name, figures_ in run["rows"].items():
            table.setdefault(name, []).append({**figures_, "share": figures_["mean"] / run["rows"]["cold"]["mean"]})
    lines = []
    for (command, robots), table in tables.items():
        lines += [
            f"{command}, {robots} robots, {len(next(iter(table.values())))} seeds",
            "",
            "| start | iterations, mean | share of cold, % | median | 90 % | certified, % | smoothness, m^2/s^4 |",
            "| --- " * 7 + "|",
        ]
        for name, runs in table.items():
            columns = {key: [run[key] for run in runs] for key in runs[0]}
            median, most, certified, smooth = (
                float(np.mean(columns[key])) for key in ("median", "most", "certified", "smoothness")
            )
            share = interval([100 * value for value in columns["share"]])
            cells = [name, interval(columns["mean"]), share, f"{median:.1f}", f"{most:.0f}", f"{100 * certified:.1f}"]
            lines.append(f"| {' | '.join([*cells, f'{smooth:.3f}'])} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("bounds", "learned", "show"))
    parser.add_argument("--robots", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--problems", type=int, default=100, help="held-out problems of each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=1000, help="scenes for training")
    parser.add_argument("--expert-scenes", type=int, default=100, help="scenes of these for the flow's data")
    parser.add_argument("--copies", type=int, default=2, help="solved proposals of each of these scenes")
    parser.add_argument("--flow-updates", type=int, default=600)
    parser.add_argument("--imitation-updates", type=int, default=400)
    parser.add_argument("--imitated", type=int, default=60, help="largest number of iterations of an imitated solution")
    parser.add_argument("--unrolled-updates", type=int, default=200)
    parser.add_argument("--unrolled", type=int, default=8, help="iterations of the unrolled filter")
    parser.add_argument("--batch", type=int, default=16, help="problems of an update through the filter")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="file to which results are appended as lines of JSON")
    arguments = parser.parse_args()
    th.set_num_threads(arguments.threads)
    if arguments.command == "show":
        return print(show(arguments.output))
    for robots in arguments.robots:
        for seed in arguments.seeds:
            if arguments.command == "bounds":
                rows = bounds(robots, arguments.problems, seed)
            else:
                rows = learned(robots, arguments.problems, seed, arguments)
            settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "robots", "seeds")}
            with arguments.output.open("a") as file:
                file.write(json.dumps({**settings, "robots": robots, "seed": seed, "rows": rows}) + "\n")
            print(robots, seed, {name: round(row["mean"], 1) for name, row in rows.items()}, flush=True)


if __name__ == "__main__":
    main()
