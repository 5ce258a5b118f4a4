"""The command ``sb3-flow export``: the policy of a run of RL Zoo as an ONNX file."""

from __future__ import annotations

import argparse
from typing import Any

from sb3_flow.common.environments import import_packages
from sb3_flow.common.files import file_to_write
from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.runs import load_run


def add_commands(subparsers: Any) -> None:
    """
    Add the command ``export`` to a parser.

    :param subparsers: Return value of ``add_subparsers``
    """
    parser = subparsers.add_parser("export", help="write the policy of a trained agent to an ONNX file")
    parser.add_argument("--algo", required=True, help="name of the algorithm, such as fql")
    parser.add_argument("--env", required=True, help="id of the environment")
    parser.add_argument("-f", "--folder", default="logs", help="folder of the runs (default: logs)")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run (default: the last one)")
    parser.add_argument("--load-best", action="store_true", help="export the best model instead of the last one")
    parser.add_argument("--sampler", help="sampler to export, such as bc_flow (default: that of the model)")
    parser.add_argument("--real-time", action="store_true", help="export whole chunks with conditions, for a control loop")
    parser.add_argument("-o", "--output", help="file to write (default: ALGO-ENV.onnx in the run's folder)")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    parser.add_argument("--trusted", action="store_true", help="run the code that files of the run contain, such as pickles")
    parser.set_defaults(run=export)


def export(options: argparse.Namespace) -> None:
    """
    Export the policy of a run, with the environment of the run for normalization and image layout.

    :param options: The parsed command line
    :raises ValueError: If there is no such algorithm or run, or the policy cannot be exported.
    """
    utils: Any = require("rl_zoo3.utils", "zoo", "Reading a run of RL Zoo")
    if not hasattr(ALGORITHMS.get(options.algo), "export"):
        exportable = sorted(name for name, cls in ALGORITHMS.items() if hasattr(cls, "export"))
        raise ValueError(f"--algo {options.algo!r} cannot be exported; choose one of {', '.join(exportable)}.")
    import_packages(options.gym_packages)
    run = load_run(options.algo, options.env, options.folder, options.exp_id, options.load_best, options.trusted)
    output = file_to_write(options.output or run.folder / f"{options.algo}-{utils.EnvironmentName(options.env)}.onnx", "onnx")
    run.model.export(output, options.sampler, options.real_time)  # type: ignore[attr-defined]
    print(f"Exported {run.path} to {output}")
