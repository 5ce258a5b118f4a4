"""The file of a sweep: its format, and the runs that it defines."""

from __future__ import annotations

import fnmatch
import importlib
import itertools
import math
import shlex
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch as th

from sb3_flow.common.arguments import closest, number_in_text
from sb3_flow.common.environments import register_environment
from sb3_flow.zoo.configs import check_policy_kwargs, is_config, load_yaml, no_such_config, read_value
from sb3_flow.zoo.nested import check_environment_arguments

Level = dict[str, Any]


class Option(NamedTuple):
    """
    An option of a run: a key that is not a hyperparameter.

    :param kind: Type of its value: ``"whole"``, ``"number"``, ``"text"``, ``"names"`` or ``"mapping"``
    :param flag: The corresponding option of ``sb3-flow train``; None: there is none
    """

    kind: str
    flag: str | None


#: All options, in the order of the command line. ``seeds`` defines several runs.
OPTIONS = {
    "seeds": Option("seeds", None),
    "n_timesteps": Option("whole", "--n-timesteps"),
    "eval_freq": Option("whole", "--eval-freq"),
    "eval_episodes": Option("whole", "--eval-episodes"),
    "n_eval_envs": Option("whole", "--n-eval-envs"),
    "eval_samplers": Option("names", "--eval-samplers"),
    "save_freq": Option("whole", "--save-freq"),
    "checkpoint_freq": Option("whole", "--checkpoint-freq"),
    "log_interval": Option("whole", "--log-interval"),
    "vec_env": Option("text", "--vec-env"),
    "env_kwargs": Option("mapping", "--env-kwargs"),
    "eval_env_kwargs": Option("mapping", "--eval-env-kwargs"),
    "conf_file": Option("text", "--conf-file"),
    "tensorboard_log": Option("text", "--tensorboard-log"),
    "device": Option("text", "--device"),
    "cpus": Option("number", None),
    "gpus": Option("number", None),
    "seeds_per_process": Option("whole", None),
}
#: Values of options that have few.
CHOICES = {"vec_env": ("dummy", "subproc")}
#: Largest number of seeds of an algorithm on a task.
MOST_SEEDS = 10_000
#: Former names of options, and their current names.
RENAMED = {"eval_heads": "eval_samplers"}
#: Keys at the top level of the file that are neither options nor hyperparameters.
FILE_KEYS = ("output", "packages", "tasks", "algorithms", "settings")
#: Arguments of algorithms that RL Zoo sets, or that have another key in this file.
NOT_HYPERPARAMETERS = {"env", "seed", "verbose", *OPTIONS}
#: Options whose negative values mean "never" in RL Zoo.
MAY_BE_NEGATIVE = {"eval_freq", "save_freq", "log_interval"}
KINDS = {
    "whole": "a whole number above 0",
    "number": "a number above 0",
    "text": "text",
    "names": "a list of names",
    "mapping": "a mapping",
}


@dataclass(frozen=True)
class Run:
    """
    One training, which runs in its own process, or together with other seeds.

    :param algo: Name of the algorithm, as in ``--algo``
    :param env: Id of the environment
    :param seed: Seed, at least 0
    :param setting: Name of the setting; None if the file has no settings
    :param folder: Folder of its results: ``<output>/[<setting>/]<algo>/<env>_<seed + 1>``
    :param command: The command line after ``sb3-flow``
    :param timesteps: Number of timesteps; None: that of its configuration
    :param cpus: Number of cores and threads
    :param gpus: Number of GPUs; with a fraction, several runs share one
    :param seeds_per_process: Number of seeds that train together in one process, which has the cores and GPUs of one run
    """

    algo: str
    env: str
    seed: int
    setting: str | None
    folder: Path
    command: tuple[str, ...]
    timesteps: int | None
    cpus: float
    gpus: float
    seeds_per_process: int = 1

    def __str__(self) -> str:
        setting = f"{self.setting} " if self.setting else ""
        return f"{setting}{self.algo} {self.env} seed {self.seed}"

    @property
    def shell(self) -> str:
        """The command line for a shell."""
        return shell(self.command)


def shell(command: Sequence[str]) -> str:
    """A command line for a shell, given what follows ``sb3-flow``."""
    return shlex.join(("sb3-flow", *command))


def processes(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """
    Group runs by process.

    :param runs: The runs
    :return: The runs of each process, which differ in the seed, ordered by the first run
    """
    cells: dict[tuple[str | None, str, str], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.setting, run.algo, run.env), []).append(run)
    sizes = [(cell, cell[0].seeds_per_process) for cell in cells.values()]
    groups = [tuple(cell[start : start + size]) for cell, size in sizes for start in range(0, len(cell), size)]
    return sorted(groups, key=lambda group: runs.index(group[0]))


def command_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """
    The command line of a process.

    :param runs: Its runs, see ``processes``
    :return: The command line after ``sb3-flow``
    """
    if len(runs) == 1:
        return runs[0].command
    name, *rest = (argument for argument in runs[0].command if not argument.startswith(("--seed=", "--run-id=")))
    return name, "--seeds", *(str(run.seed) for run in runs), *rest


def read_sweep(file: Path) -> Level:
    """
    Read the file of a sweep.

    :param file: A YAML file
    :return: Its content
    :raises ValueError: If it is not valid YAML, not a mapping, or has duplicate keys.
    :raises OSError: If it cannot be read.
    """
    content = load_yaml(file, "sweep", "A sweep")
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a sweep is a mapping with `tasks`, `algorithms` and `seeds`; see docs/sweeps.md.")
    renamed: Level = _with_new_names(content)
    return renamed


def _with_new_names(value: Any) -> Any:
    """Replace former names of keys."""
    if isinstance(value, list):
        return [_with_new_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    for old in RENAMED.keys() & value.keys():
        warnings.warn(f"`{old}` is deprecated in sweeps; write `{RENAMED[old]}`.", DeprecationWarning, stacklevel=4)
    return {RENAMED.get(key, key): _with_new_names(item) for key, item in value.items()}


def expand(
    content: Mapping[str, Any],
    file: Path,
    algorithms: Mapping[str, Collection[str]],
    output: Path | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    classes: Mapping[str, type] | None = None,
) -> list[Run]:
    """
    List the runs of a sweep, ordered by seed.

    :param content: Content of the file
    :param file: The file, for messages
    :param algorithms: The names of the hyperparameters of each algorithm, optionally with their type hints
    :param output: Folder of the results, instead of that of the file
    :param cpus: Cores of each run, instead of those of the file
    :param gpus: GPUs of each run, instead of those of the file
    :param classes: The class of each algorithm, with which arguments of policies are checked
    :return: The runs
    :raises ValueError: If the content is invalid. The message names the place, the value and what was expected.
    """
    return _Grid(content, file, algorithms, output, {"cpus": cpus, "gpus": gpus}, classes or {}).runs()


class _Grid:
    """The checked content of a file."""

    def __init__(
        self,
        content: Mapping[str, Any],
        file: Path,
        algorithms: Mapping[str, Collection[str]],
        output: Path | None,
        forced: Mapping[str, float | None],
        classes: Mapping[str, type],
    ) -> None:
        self.file, self.classes = file, classes
        self.hints = algorithms
        self.known = {name: set(keys) - NOT_HYPERPARAMETERS for name, keys in algorithms.items()}
        self.forced = {key: value for key, value in forced.items() if value is not None}
        self.top = {key: value for key, value in content.items() if key not in FILE_KEYS}
        for package in self._names(content.get("packages", []), "packages"):
            try:
                importlib.import_module(package)
            except (ImportError, TypeError, ValueError) as error:  # the latter for names such as `..`
                raise self._error("packages", f"`{package}` cannot be imported ({error}).") from error
        self.packages = list(content.get("packages", []))
        if output is None and not isinstance(content.get("output"), str):
            raise self._error("", "`output` is missing: the folder of the results. Set it here, or pass --output.")
        self.output = output or Path(content["output"])
        self.algorithms = self._sections(content, "algorithms", "")
        self.tasks = self._resolve_tasks(self._sections(content, "tasks", ""))
        self.settings: Mapping[str | None, Level] = {None: {}}
        if settings := self._sections(content, "settings", ""):
            self.settings = dict(settings.items())
        for section, entries in (("algorithms", self.algorithms), ("tasks", self.tasks)):
            if not entries:
                close = closest(section, self.top)
                hint = f" Did you mean `{close}`?" if close else ""
                raise self._error("", f"`{section}` is missing: a list of names, or a mapping from names to settings.{hint}")
        self._check_names()

    def runs(self) -> list[Run]:
        """All runs, by seed and then in the order of the file."""
        cells = [
            self._runs_of(setting, algo, task) for setting in self.settings for algo in self.algorithms for task in self.tasks
        ]
        runs = [run for row in itertools.zip_longest(*cells) for run in row if run is not None]
        if not runs:
            raise self._error("", "there are no runs: all `seeds` are 0 or empty.")
        return runs

    def _check_names(self) -> None:
        for algo in self.algorithms:
            self._must_be_one_of(algo, self.known, "algorithms", "algorithm")
        for name in self.settings:
            if name is not None and (not name or name in self.known or name.startswith(".") or "/" in name or "\\" in name):
                raise self._error("settings", f"`{name}` must be a valid folder name and not the name of an algorithm.")
        for where, level in self._nested_levels():
            for algo in self._sections(level, "algorithms", where):
                self._must_be_one_of(algo, self.algorithms, f"{where}.algorithms", "algorithm of this sweep")
            for task in self._sections(level, "tasks", where):
                if not fnmatch.filter(self.tasks, task):
                    self._must_be_one_of(task, self.tasks, f"{where}.tasks", "task of this sweep")

    def _nested_levels(self) -> Iterator[tuple[str, Level]]:
        """The levels that may contain `tasks` or `algorithms`, with their places."""
        for algo, level in self.algorithms.items():
            yield f"algorithms.{algo}", level
        for name, level in self.settings.items():
            yield f"settings.{name}", level
            for algo, inner in self._sections(level, "algorithms", f"settings.{name}").items():
                yield f"settings.{name}.algorithms.{algo}", inner

    def _must_be_one_of(self, name: str, names: Iterable[str], where: str, what: str) -> None:
        if name in names:
            return
        close = closest(name, names)
        hint = f"did you mean `{close}`?" if close else f"expected one of: {', '.join(sorted(names))}."
        raise self._error(where, f"unknown {what} `{name}`; {hint}")

    def _resolve_tasks(self, entries: Mapping[str, Level]) -> dict[str, tuple[str, Level]]:
        """Environments by id, each with place and level of its entry. Names of entries may be patterns."""
        tasks: dict[str, tuple[str, Level]] = {}
        for name, level in entries.items():
            register_environment(name)  # patterns start like the ids of their package, too
            found = [name] if name in gym.registry else fnmatch.filter(gym.registry, name)
            if not found:
                self._must_be_one_of(name, gym.registry, "tasks", "environment in Gymnasium's registry")
            for env_id in found:
                if env_id in tasks:
                    raise self._error("tasks", f"`{env_id}` matches two entries, `{tasks[env_id][0]}` and `{name}`; keep one.")
                tasks[env_id] = (name, level)
        return {env_id: (f"tasks.{name}", level) for env_id, (name, level) in tasks.items()}

    def _sections(self, level: Mapping[str, Any], section: str, where: str) -> dict[str, Level]:
        """The entries of `tasks`, `algorithms` or `settings`: a mapping, or a list of names."""
        entries = level.get(section)
        place = f"{where}.{section}".lstrip(".")
        if isinstance(entries, list):
            for name in self._names(entries, place):
                if entries.count(name) > 1:
                    raise self._error(place, f"`{name}` is duplicate; keep one.")
            entries = dict.fromkeys(entries)
        if entries is None:
            return {}
        if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
            raise self._error(place, f"expected a list of names, or a mapping from names to settings, not {entries!r}.")
        for name, entry in entries.items():
            if not isinstance(entry, dict | None):
                raise self._error(f"{place}.{name}", f"expected a mapping, or nothing, not {entry!r}.")
        return {name: dict(entry or {}) for name, entry in entries.items()}

    def _layers(self, setting: str | None, algo: str, task: str) -> Iterator[tuple[str, Level]]:
        """All levels that apply to a run, with their places, more specific ones later."""
        yield "", self.top
        yield self.tasks[task]
        yield from self._with_tasks(f"algorithms.{algo}", self.algorithms[algo], task)
        place = f"settings.{setting}"
        level = dict(self.settings[setting])
        algorithms = self._sections(level, "algorithms", place)
        level.pop("algorithms", None)
        yield from self._with_tasks(place, level, task)
        yield from self._with_tasks(f"{place}.algorithms.{algo}", algorithms.get(algo, {}), task)

    def _with_tasks(self, where: str, level: Level, task: str) -> Iterator[tuple[str, Level]]:
        """A level, and the entries of its `tasks` for one task."""
        yield where, {key: value for key, value in level.items() if key != "tasks"}
        for pattern, inner in self._sections(level, "tasks", where).items():
            if fnmatch.fnmatchcase(task, pattern):
                yield f"{where}.tasks.{pattern}", inner

    def _runs_of(self, setting: str | None, algo: str, task: str) -> list[Run]:
        """The runs of one cell of the table, one for each seed."""
        values: Level = {}
        places: dict[str, str] = {}
        for where, level in self._layers(setting, algo, task):
            values.update(level)
            places.update(dict.fromkeys(level, where))
        if "seeds" not in values:
            raise self._error("", "`seeds` is missing: the number of seeds, or a list of seeds.")
        seeds = self._seeds(values["seeds"], places["seeds"])
        if not seeds:
            return []  # no runs: their other settings are not checked
        options = {key: self._option(key, values[key], places[key]) for key in OPTIONS if key in values and key != "seeds"}
        for key in ("env_kwargs", "eval_env_kwargs"):
            where = places.get(key, "")
            check_environment_arguments(options.get(key, {}), task, f"{self.file}{', ' if where else ''}{where}")
        options = {"cpus": 1, "gpus": 0, **options, **self.forced}
        options.setdefault("device", "cuda" if options["gpus"] else "cpu")
        hyperparameters = {key: value for key, value in values.items() if key not in OPTIONS}
        for key in hyperparameters:
            self._check_key(key, algo, places[key])
            self._check_value(key, hyperparameters[key], algo, places[key])
        params = [f"{key}:{self._python(value, places[key], key)}" for key, value in sorted(hyperparameters.items())]
        return [self._run(setting, algo, task, seed, options, params) for seed in seeds]

    def _run(self, setting: str | None, algo: str, task: str, seed: int, options: Level, params: list[str]) -> Run:
        log_folder = self.output / setting if setting else self.output
        command = ["train", f"--algo={algo}", f"--env={task}", f"--seed={seed}", f"--run-id={seed + 1}", "--resume"]
        command += [f"--log-folder={log_folder}", f"--num-threads={max(1, int(options['cpus']))}"]
        for key, (kind, flag) in OPTIONS.items():
            if flag is None or key not in options:
                continue
            value = options[key]
            if kind == "mapping":
                command += [flag, *(f"{name}:{self._python(item, '', key)}" for name, item in value.items())]
            else:
                command += [flag, *value] if kind == "names" else [f"{flag}={value}"]
        if self.packages:
            command += ["--gym-packages", *self.packages]
        if params:
            command += ["-params", *params]
        folder = log_folder / algo / f"{task.replace('/', '-')}_{seed + 1}"
        resources = {"timesteps": options.get("n_timesteps"), "cpus": options["cpus"], "gpus": options["gpus"]}
        together = options.get("seeds_per_process", 1)
        return Run(algo, task, seed, setting, folder, tuple(command), **resources, seeds_per_process=together)

    def _check_value(self, key: str, value: Any, algo: str, where: str) -> None:
        hints, place = self.hints[algo], f"{self.file}, {where}" if where else str(self.file)
        if isinstance(hints, Mapping):
            read_value(key, value, hints, lambda _: place)
        aliases = getattr(self.classes.get(algo), "policy_aliases", {})
        if key == "policy_kwargs" and isinstance(value, dict) and len({*aliases.values()}) == 1:  # one policy for all spaces
            check_policy_kwargs(value, self.classes[algo], next(iter(aliases)), place)

    def _check_key(self, key: Any, algo: str, where: str) -> None:
        if key in self.known[algo]:
            return
        keys = [*OPTIONS, *(FILE_KEYS if where == "" else ())]
        close = closest(str(key), [*self.known[algo], *keys])
        hint = f"did you mean `{close}`?" if close else f"hyperparameters of {algo}: {', '.join(sorted(self.known[algo]))}."
        raise self._error(where, f"unknown key `{key}`; {hint} Options: {', '.join(keys)}.")

    def _seeds(self, value: Any, where: str) -> list[int]:
        if type(value) is int and 0 <= value <= MOST_SEEDS:
            return list(range(value))
        if type(value) is int and value > MOST_SEEDS:
            raise self._error(where, f"`seeds` is {value}, which is the number of seeds; a single seed is [{value}].")
        if not isinstance(value, list) or not all(type(seed) is int and 0 <= seed < 2**32 for seed in value):
            raise self._error(
                where, f"`seeds` is {value!r}; expected the number of seeds, or a list of integers from 0 to 2^32."
            )
        if len(set(value)) < len(value):
            raise self._error(where, f"`seeds` is {value!r}; it must not have duplicates.")
        return value

    def _option(self, key: str, value: Any, where: str) -> Any:
        kind = OPTIONS[key].kind
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and (value > 0 or (key in MAY_BE_NEGATIVE) or (key == "gpus" and value == 0)):
            if kind == "number":
                return value
            if kind == "whole" and int(value) == value:
                return int(value)
        if key in CHOICES and value not in CHOICES[key]:
            raise self._error(where, f"`{key}` is {value!r}; expected one of: {', '.join(CHOICES[key])}.")
        if kind == "text" and isinstance(value, str):
            if key == "device" and value != "auto" and not _is_device(value):
                raise self._error(where, f"`device` is {value!r}; expected auto, cpu, cuda or another device of PyTorch.")
            if key == "conf_file" and value.endswith((".yml", ".yaml", ".py")) and not Path(value).is_file():
                raise self._error(where, f"`conf_file` is {value!r}, which does not exist (relative to {Path.cwd()}).")
            if key == "conf_file" and not (value.endswith((".yml", ".yaml", ".py")) or is_config(value)):
                raise self._error(where, str(no_such_config(value)))
            return value
        if kind == "names":
            return self._names(value, f"{where}.{key}".lstrip("."))
        if kind == "mapping" and isinstance(value, dict):
            for name in value:
                if not (isinstance(name, str) and name.isidentifier()):
                    raise self._error(where, f"`{key}` has the name {name!r}; expected the name of an argument.")
            self._python(value, where, key)
            return value
        raise self._error(where, f"`{key}` is {value!r}; expected {KINDS[kind]}.{number_in_text(value)}")

    def _names(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self._error(where, f"expected a list of names, not {value!r}.")
        return value

    def _python(self, value: Any, where: str, key: str) -> str:
        """A value as a Python literal, the format of RL Zoo's command line."""
        if hint := number_in_text(value):
            raise self._error(where, f"`{key}` is {value!r}.{hint}")
        if isinstance(value, float) and not math.isfinite(value):
            return f"float('{value}')"
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        if isinstance(value, list):
            return f"[{', '.join(self._python(item, where, key) for item in value)}]"
        if isinstance(value, dict):
            pairs = (f"{self._python(name, where, key)}: {self._python(item, where, key)}" for name, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        raise self._error(where, f"`{key}` contains {value!r}; expected numbers, text, lists and mappings only.")

    def _error(self, where: str, message: str) -> ValueError:
        return ValueError(f"{self.file}{', ' if where else ''}{where}: {message}")


def _is_device(text: str) -> bool:
    """Whether it is a name of a device, which another machine may have."""
    try:
        th.device(text)
    except RuntimeError:
        return False
    return True
