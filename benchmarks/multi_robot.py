"""
Multi-robot planning: fraction of certified plans, iterations, time and smoothness of the safety filter from straight lines,
from noise and from trained models, of its predecessor, and of general optimizers.

    python benchmarks/multi_robot.py --robots 4 8 16 --problems 200 --samples 4
    python benchmarks/multi_robot.py --robots 8 --problems 200 --models flow.zip diffusion.zip --flow-steps 1 2 5 10
    python benchmarks/multi_robot.py --robots 16 --problems 256 --batch 256 --device cuda
    python benchmarks/multi_robot.py --robots 4 8 --problems 20 --methods slsqp ipopt   # pip install ".[optimizers]"

Seeds of scenes differ from those of datasets. All samples of a batch are planned at once. A sample is solved if it is
certified, a problem if one of its samples is; intervals are 95 % Wilson intervals. `plans` is the number of certified plans of
a problem in which robots pass on different sides; smoothness and length are those of the best plan.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch as th
from multi_robot_optimizers import OPTIMIZERS, Optimizer

from sb3_flow import FlowOpt
from sb3_flow.planning.costs import noise
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.measures import measure, winding_angles
from sb3_flow.planning.motion import motion
from sb3_flow.planning.observations import observation, solver_samples
from sb3_flow.planning.polish import polish
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import Filtered, SafetyFilter
from sb3_flow.planning.scenes import Scenes, standard_limits, standard_obstacles

#: Scenes of datasets have seeds from 0.
SEED = 1_000_000
#: Standard deviation of the proposals "line" and "noise", in meters.
LINE, NOISE = 0.01, 0.2
METHODS = ("line", "noise", "noise+polish", "predecessor", "predecessor-15", *OPTIMIZERS)


class Result(NamedTuple):
    """
    The result of a method for a batch.

    :param y: The plans, ``(B K, N, D, m)``
    :param safe: Which plans are certified, ``(B K,)``
    :param iterations: Number of iterations, ``(B K,)``
    """

    y: th.Tensor
    safe: th.Tensor
    iterations: th.Tensor


Method = Callable[[Problems, int], Result]


def filtered(filter_: SafetyFilter, sigma: float, seed: int, rounds: int = 0) -> Method:
    """The filter from random proposals."""

    def run(problems: Problems, k: int) -> Result:
        many = problems.repeat(k)
        # Sampled on the CPU, so that they are equal on all devices.
        proposals = noise(many.to("cpu"), filter_.basis, sigma, th.Generator().manual_seed(seed)).to(many.start)
        result: Filtered = filter_(many, proposals)
        if rounds == 0:
            return Result(result.y, result.safe, result.iterations)
        smooth = polish(filter_, many, result.y, result.safe, rounds)
        return Result(smooth.y, smooth.safe, result.iterations + smooth.iterations)

    return run


def learned(model: FlowOpt, initialize: bool, flow_steps: int, seed: int, rounds: int = 0) -> Method:
    """The filter from proposals of a model."""
    policy = model.policy
    policy.set_training_mode(False)

    def run(problems: Problems, k: int) -> Result:
        policy.flow_steps = flow_steps
        observations = observation(problems.to("cpu"), policy.limits)
        shown = {key: th.from_numpy(value).to(policy.device) for key, value in observations.items()}
        seen, generator = policy.problems(shown), th.Generator().manual_seed(seed)
        with th.no_grad():
            x0 = th.randn(len(problems.start) * k, policy.action_dim, generator=generator).to(policy.device)
            many, proposals = seen.repeat(k), policy.propose(seen, x0)
            result = policy.filter(many, proposals, policy.starts(many, proposals) if initialize else None)
            if rounds:
                smooth = polish(policy.filter, many, result.y, result.safe, rounds)
                return Result(smooth.y, smooth.safe, result.iterations + smooth.iterations)
        return Result(result.y, result.safe, result.iterations)

    return run


def optimized(solver: Optimizer, limits: Limits, seed: int) -> Method:
    """A general optimizer, one sample at a time, from the same proposals as "noise"."""
    judge = SafetyFilter(limits, FilterSettings(samples=solver_samples(limits)))

    def run(problems: Problems, k: int) -> Result:
        many = problems.repeat(k).to("cpu")
        starts = noise(many, judge.basis, NOISE, th.Generator().manual_seed(seed))
        solved = [solver.solve(many.select(th.tensor([b])), starts[b]) for b in range(len(starts))]
        y = th.stack([y for y, _ in solved])
        safe = judge.certificate.certify(many, y).safe
        return Result(y, safe, th.tensor([iterations for _, iterations in solved]))

    return run


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a probability."""
    z, p = 1.959964, successes / trials
    middle, spread = p + z**2 / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    return (middle - spread) / (1 + z**2 / trials), (middle + spread) / (1 + z**2 / trials)


def row(name: str, method: Method, problems: Problems, limits: Limits, k: int, batch: int) -> dict[str, object]:
    """Run a method on all problems, and summarize the results."""
    count = len(problems.start)
    parts, wall, cpu = [], time.perf_counter(), time.process_time()
    for start in range(0, count, batch):
        result = method(problems.select(th.arange(start, min(start + batch, count))), k)
        parts.append(Result(*(part.cpu() for part in result)))  # waits for the device
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    result = Result(*(th.cat(column) for column in zip(*parts, strict=True)))
    problems, safe = problems.to("cpu"), result.safe.view(count, k)
    solved = safe.any(dim=1)
    summary: dict[str, object] = {
        "robots": problems.start.shape[1],
        "dimensions": limits.dimensions,
        "method": name,
        "problems": count,
        "samples": k,
        "samples_certified": safe.float().mean().item(),
        "samples_interval": wilson(int(safe.sum()), count * k),
        "problems_solved": solved.float().mean().item(),
        "problems_interval": wilson(int(solved.sum()), count),
        "iterations_median": result.iterations.float().median().item(),
        "iterations_90": result.iterations.float().quantile(0.9).item(),
        "wall_ms_per_problem": 1000 * wall / count,
        "cpu_ms_per_problem": 1000 * cpu / count,
    }
    if result.y.shape[-1] == 7 and solved.any():  # other degrees are not measured
        many = problems.repeat(k)
        measures = measure(many, result.y, limits)
        summary["false_certificates"] = int((result.safe & ~measures.success).sum())
        smoothness = th.where(result.safe, measures.smoothness, th.inf).view(count, k)
        best = smoothness.argmin(dim=1)
        summary["smoothness"] = smoothness[solved].amin(dim=1).mean().item()
        summary["length"] = measures.length.view(count, k)[th.arange(count), best][solved].mean().item()
        summary["plans"] = _sides(problems, result, limits, k)
    return summary


def _sides(problems: Problems, result: Result, limits: Limits, k: int) -> float:
    """Mean number of certified plans per problem such that in any two of them some robots pass on different sides."""
    times = th.linspace(0, limits.horizon, 200, dtype=th.float64)
    angles = winding_angles(motion(problems.repeat(k), result.y, limits.horizon, times)[0])
    counts = []
    for start in range(0, len(angles), k):
        kept: list[th.Tensor] = []
        for j in range(start, start + k):
            if result.safe[j] and all(bool(((angles[j] - other).abs() > th.pi).any()) for other in kept):
                kept.append(angles[j])
        counts.append(len(kept))
    return float(np.mean(counts))


def show(rows: list[dict[str, object]]) -> str:
    """Results as a Markdown table."""

    def share(name: str, row: dict[str, object]) -> str:
        low, high = row[f"{name}_interval"]  # type: ignore[misc]
        value = row["samples_certified" if name == "samples" else "problems_solved"]
        return f"{100 * float(value):.1f} ({100 * low:.1f}-{100 * high:.1f})"  # type: ignore[arg-type]

    def number(row: dict[str, object], name: str, digits: int) -> str:
        value = row.get(name)
        return "" if value is None else f"{value:.{digits}f}"

    lines = [
        "| robots | method | problems x samples | samples certified, % | problems solved, % | iterations, median / 90 % | "
        "ms per problem, wall / CPU | smoothness, m^2/s^4 | length, m | plans |",
        "| --- " * 10 + "|",
    ]
    for r in rows:
        cells = [
            str(r["robots"]) + (" (3-D)" if r.get("dimensions") == 3 else ""),
            str(r["method"]),
            f"{r['problems']} x {r['samples']}",
            share("samples", r),
            share("problems", r),
            f"{number(r, 'iterations_median', 0)} / {number(r, 'iterations_90', 0)}",
            f"{number(r, 'wall_ms_per_problem', 1)} / {number(r, 'cpu_ms_per_problem', 1)}",
            number(r, "smoothness", 3),
            number(r, "length", 2),
            number(r, "plans", 1),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def show_file(file: Path) -> str:
    """Results of a file: a table for each device, number of threads and number of problems planned at once."""
    tables: dict[str, list[dict[str, object]]] = {}
    for line in file.read_text().splitlines():
        figures = json.loads(line)
        title = "{device}, {threads} threads, {batch} problems at once".format_map({"device": "cpu", **figures})
        tables.setdefault(title, []).append(figures)
    return "\n\n".join(f"{title}\n\n{show(rows)}" for title, rows in tables.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4, help="K")
    parser.add_argument("--batch", type=int, default=32, help="problems planned at once")
    parser.add_argument("--dimensions", type=int, default=2, choices=(2, 3))
    parser.add_argument("--device", default="cpu", help="device of filter and models")
    parser.add_argument("--layout", default="mixed")
    parser.add_argument("--methods", nargs="*", default=list(METHODS[:5]), choices=METHODS)
    parser.add_argument(
        "--models", type=Path, nargs="*", default=[], help="saved models; models for other numbers of robots are skipped"
    )
    parser.add_argument("--flow-steps", type=int, nargs="+", default=[10])
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU time of IPOPT for a problem")
    parser.add_argument("--threads", type=int, default=th.get_num_threads())
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, help="file to which results are appended, one JSON object per line")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the results of such a file instead")
    arguments = parser.parse_args()
    if arguments.show:
        return print(show_file(arguments.show))
    th.set_num_threads(arguments.threads)
    rows = []
    for robots in arguments.robots:
        limits = standard_limits(robots, arguments.dimensions)
        scenes = Scenes(limits, robots, standard_obstacles(robots), arguments.layout)
        problems = scenes.sample(np.random.default_rng((arguments.seed, robots)), arguments.problems).to(arguments.device)
        ours = SafetyFilter(limits, FilterSettings(samples=solver_samples(limits))).to(arguments.device)
        methods: dict[str, tuple[Method, int]] = {}
        for name in arguments.methods:
            k = 1 if name == "line" else arguments.samples
            if name == "line":
                methods[name] = filtered(ours, LINE, arguments.seed), k
            elif name.startswith("noise"):
                methods[name] = filtered(ours, NOISE, arguments.seed, 6 if "polish" in name else 0), k
            elif name.startswith("predecessor"):
                most = 15 if name.endswith("15") else 100
                old = SafetyFilter(limits, FilterSettings.predecessor(max_iterations=most)).to(arguments.device)
                methods[name] = filtered(old, NOISE, arguments.seed), k
            else:
                methods[name] = optimized(OPTIMIZERS[name](limits, arguments.seconds), limits, arguments.seed), k
        for file in arguments.models:
            model = FlowOpt.load(file, device=arguments.device)
            if model.policy.limits != limits or model.policy.max_robots < robots:
                continue
            for steps in arguments.flow_steps:
                for initialize in (False, True) if model.flow_fraction < 1 else (False,):
                    name = f"{file.stem}, {steps} steps{', initializer' if initialize else ''}"
                    methods[name] = learned(model, initialize, steps, arguments.seed), arguments.samples
            methods[f"{file.stem}, {steps} steps, polish"] = (
                learned(model, False, steps, arguments.seed, 6),
                arguments.samples,
            )
        for name, (method, k) in methods.items():
            rows.append(row(name, method, problems, limits, k, arguments.batch))
            print(show(rows[-1:]).splitlines()[-1], flush=True)
            if arguments.output:
                with arguments.output.open("a") as file:
                    conditions = {name: vars(arguments)[name] for name in ("device", "threads", "batch")}
                    file.write(json.dumps({**rows[-1], **conditions}) + "\n")
    print("\n" + show(rows))


if __name__ == "__main__":
    main()
