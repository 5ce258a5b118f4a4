"""The commands of RL Zoo: ``sb3-flow train``, ``enjoy``, ``optimize``, ``plot`` and the others."""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from sb3_flow.common.environments import import_packages, register_environment
from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS, acts_by_sampling
from sb3_flow.zoo.arguments import ACTING, add_defaults, quote_values
from sb3_flow.zoo.hub import downloading, uploading
from sb3_flow.zoo.nested import is_refusal
from sb3_flow.zoo.options import IMPORTING, check_environment, check_numbers, check_seeds, check_study, check_texts
from sb3_flow.zoo.plot_options import check_plot
from sb3_flow.zoo.registration import register
from sb3_flow.zoo.runs import as_configured, runs_with_model
from sb3_flow.zoo.seeds import train_seeds
from sb3_flow.zoo.trust import REMEDY, parsed_values, reading

Subparsers = Any  # argparse's own class for these is private


class Script(NamedTuple):
    """
    A script of RL Zoo.

    :param module: Its module
    :param function: The function to call; None: the module is run as a script
    :param help: Help text
    """

    module: str
    function: str | None
    help: str


#: Scripts by their command names; RL Zoo's names are the same with underscores.
SCRIPTS = {
    "train": Script("rl_zoo3.train", "train", "train an agent"),
    "enjoy": Script("rl_zoo3.enjoy", "enjoy", "watch a trained agent, or evaluate it (--no-render)"),
    "optimize": Script("rl_zoo3.train", "train", "tune hyperparameters with Optuna (train -optimize)"),
    "plot": Script("rl_zoo3.plots.all_plots", "all_plots", "plot evaluations over training, and print a table"),
    "plot-train": Script("rl_zoo3.plots.plot_train", "plot_train", "plot training episodes; offline runs have none"),
    "plot-from-file": Script("rl_zoo3.plots.plot_from_file", "plot_from_file", "plot the results that `plot -o` saved"),
    "record-video": Script("rl_zoo3.record_video", None, "record a video of a trained agent"),
    "push-to-hub": Script("rl_zoo3.push_to_hub", None, "upload a trained agent to the Hugging Face hub"),
    "load-from-hub": Script("rl_zoo3.load_from_hub", None, "download a trained agent"),
}
#: Scripts that read files of runs.
READING = {*ACTING, "load-from-hub", "plot-from-file", "train"}
#: Contexts of the scripts for the Hugging Face hub.
HUB = {"push-to-hub": uploading, "load-from-hub": downloading}


def add_commands(subparsers: Subparsers) -> None:
    """
    Add the scripts of RL Zoo to a parser, each as a command.

    :param subparsers: Return value of ``add_subparsers``
    """
    for name, script in SCRIPTS.items():
        # The script has its own parser. With an unused prefix it gets all arguments, including `--help`.
        command = subparsers.add_parser(name, help=script.help, add_help=False, prefix_chars="\0")
        command.add_argument("arguments", nargs="*")
        command.set_defaults(run=partial(_run, name))


def _run(name: str, options: argparse.Namespace) -> None:
    run_script(name, options.arguments)


def run_script(name: str, arguments: list[str]) -> None:
    """
    Run a script of RL Zoo with our algorithms.

    :param name: A key of ``SCRIPTS``
    :param arguments: Its command line
    :raises ImportError: If RL Zoo is not installed.
    :raises ValueError: If the script failed because of its arguments or missing files.
    """
    register()
    utils: Any = require("rl_zoo3.utils", "zoo", "The command line of RL Zoo")
    ours, arguments = _parse_ours(name, arguments)
    if not {"-h", "--help"} & set(arguments):
        arguments = _check(name, ours, arguments, utils.ALGOS)
    arguments = quote_values(arguments)
    arguments = add_defaults(name, arguments, [*filter(acts_by_sampling, ALGORITHMS)], ALGORITHMS)
    if name == "optimize":
        arguments = ["-optimize", *arguments]
    script = SCRIPTS[name]
    before = sys.argv
    sys.argv = [f"sb3-flow {name}", *arguments]
    try:
        function = _function(script, ours)
        with ExitStack() as stack:
            stack.enter_context(parsed_values())
            if name in ACTING:
                stack.enter_context(reading(ours.trusted))
                stack.enter_context(as_configured(script.module, ours.trusted))
            if name in HUB:
                stack.enter_context(HUB[name](arguments, ours.trusted))
            function()
    except AssertionError as error:  # RL Zoo's error for a missing file or folder
        raise ValueError(str(error) or f"{name} failed") from error
    except TypeError as error:
        if not is_refusal(error):
            raise
        raise ValueError(str(error)) from error
    except ValueError as error:
        if name == "plot-from-file" and "empty sequence" in str(error):
            raise ValueError("No environment is left to plot: check -skip and --keep-envs.") from error
        if not (others := runs_with_model(str(error))):
            raise
        raise ValueError(f"{error}{others}") from error
    except KeyError as error:
        if not name.startswith("plot"):
            raise
        raise ValueError(f"{error} is missing in the evaluations.npz of some runs. Plot another key (-k).") from error
    except Exception as error:
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        raise ValueError(f"The database of --storage cannot be used: {str(error).splitlines()[0]}") from error
    finally:
        sys.argv = before


def _check(name: str, ours: argparse.Namespace, arguments: list[str], algorithms: Collection[str]) -> list[str]:
    """Check the command line, and register the environment."""
    if name == "plot-from-file" and not ours.trusted:
        raise ValueError(
            f"The results that `plot -o` saves are a pickle, and reading it runs any code that it contains. {REMEDY}"
        )
    import_packages(ours.gym_packages)
    if ours.gym_packages and name in IMPORTING:
        arguments = [*arguments, "--gym-packages", *ours.gym_packages]
    check_texts(name, arguments, algorithms)
    check_plot(name, arguments)
    check_study(name, arguments)
    for env_id in ours.env or ():
        register_environment(env_id)
        check_environment(name, env_id)
    if name == "train" and ours.run_id is not None and ours.run_id < 1:
        raise ValueError(f"--run-id is {ours.run_id}; it must be at least 1.")
    if name == "train" and (ours.run_id is not None or ours.seeds) and {"-uuid", "--uuid"} & set(arguments):
        raise ValueError(
            "-uuid has no effect with --run-id or --seeds, which number the folders of runs: leave one of them out."
        )
    if name == "train" and ours.checkpoint_freq is not None and ours.checkpoint_freq < 0:
        raise ValueError(f"--checkpoint-freq is {ours.checkpoint_freq}; it must be at least 0.")
    if name == "train" and ours.seeds:
        check_seeds(ours.seeds, ours.run_id, arguments)
    if name == "train" and {"-optimize", "--optimize-hyperparameters"} & set(arguments):
        for option in ("run_id", "resume", "checkpoint_freq", "eval_samplers"):
            if getattr(ours, option) not in (None, False, []):
                raise ValueError(f"--{option.replace('_', '-')} does not go with -optimize: trials are not stored as runs.")
    return check_numbers(name, arguments)


def _parse_ours(name: str, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Separate our options from the arguments for RL Zoo; the environment is for both."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("-e" if name.startswith("plot") else "--env", "--env", dest="env", nargs="+")
    env = peek.parse_known_args(arguments)[0].env
    seed = argparse.ArgumentParser(add_help=False)
    seed.add_argument("--seed", default="-1")
    parser = argparse.ArgumentParser(prog=f"sb3-flow {name}", usage="%(prog)s [options]", add_help=False, allow_abbrev=False)
    parser.set_defaults(trusted=False)
    group = parser.add_argument_group("options in addition to RL Zoo's")
    group.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    if name in READING:
        group.add_argument("--trusted", action="store_true", help="run the code that files contain, such as pickles")
    if name == "train":
        group.add_argument("--run-id", type=int, help="number of the run's folder (default: the next free one)")
        group.add_argument("--seeds", type=int, nargs="+", help="train several seeds in one process, as runs SEED + 1")
        group.add_argument("--resume", action="store_true", help="resume from the run's last checkpoint, if there is one")
        group.add_argument(
            "--checkpoint-freq", type=int, help="timesteps between checkpoints (default: those between evaluations; 0: none)"
        )
        group.add_argument(
            "--eval-samplers", nargs="*", default=[], help="further samplers to evaluate, such as bc_flow or sampled"
        )
        group.add_argument("--eval-heads", dest="eval_samplers", nargs="*", help="deprecated name of --eval-samplers")
    if name in READING and {"-h", "--help"} & set(arguments):
        parser.print_help()
    ours, rest = parser.parse_known_args(arguments)
    ours.env = env
    if name == "train":
        ours.random_seed = seed.parse_known_args(rest)[0].seed.startswith("-")  # then RL Zoo draws one
    return ours, rest


def _function(script: Script, ours: argparse.Namespace) -> Callable[[], Any]:
    if script.function is None:
        return partial(runpy.run_module, script.module, run_name="__main__")
    try:
        module: Any = importlib.import_module(script.module)
    except ModuleNotFoundError as error:
        raise ImportError(f"This command needs the package `{error.name}`: pip install 'sb3_flow[zoo]'") from error
    if script.module == "rl_zoo3.train":
        options = {key: value for key, value in vars(ours).items() if key not in ("env", "gym_packages", "seeds")}
        from sb3_flow.zoo.experiment import FlowExperimentManager

        module.ExperimentManager = partial(FlowExperimentManager, **options)
        if getattr(ours, "seeds", None):
            return partial(train_seeds, module, ours.seeds, ours.trusted)
    return getattr(module, script.function)  # type: ignore[no-any-return]
