"""The file of a sweep: what it may say, and the list of runs that it means."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import itertools
import math
import re
import shlex
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require

Level = dict[str, Any]


class Option(NamedTuple):
    """
    An option of a run: a key that is no hyperparameter.

    :param kind: What its value must be: ``"whole"``, ``"number"``, ``"text"``, ``"names"`` or ``"mapping"``
    :param flag: The option of ``sb3-flow train`` that it becomes; None: it is used otherwise
    """

    kind: str
    flag: str | None


#: All options, in the order of the command line. ``seeds`` is the one that makes several runs.
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
}
#: Options that had another name, and their names of today.
RENAMED = {"eval_heads": "eval_samplers"}
#: Keys of the file's top that are neither options nor hyperparameters.
FILE_KEYS = ("output", "packages", "tasks", "algorithms", "settings")
#: Arguments of every algorithm that RL Zoo, or this file by another key, takes care of.
NOT_HYPERPARAMETERS = {"env", "seed", "verbose", *OPTIONS}
#: Options whose negative values mean "never" to RL Zoo.
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
    One training, which is a process of its own.

    :param algo: Name of the algorithm, as in ``--algo``
    :param env: Id of the environment
    :param seed: Seed, at least 0
    :param setting: Name of the setting; None where the file has no settings
    :param folder: Where its results go: ``<output>/[<setting>/]<algo>/<env>_<seed + 1>``
    :param command: The command line after ``sb3-flow``
    :param timesteps: What it trains for; None: what its configuration says
    :param cpus: Cores that it gets, and threads
    :param gpus: GPUs that it gets; a fraction shares one
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

    def __str__(self) -> str:
        setting = f"{self.setting} " if self.setting else ""
        return f"{setting}{self.algo} {self.env} seed {self.seed}"

    @property
    def shell(self) -> str:
        """The command line as one would type it."""
        return shlex.join(("sb3-flow", *self.command))


def read_sweep(file: Path) -> Level:
    """
    Read the file of a sweep.

    :param file: A YAML file
    :return: What it says
    :raises ValueError: If it is no YAML, no mapping, or says the same key twice.
    :raises OSError: If it cannot be read.
    """
    yaml = require("yaml", "sweep", "A sweep")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """Refuses a key that is there twice, where YAML would silently take the last."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys: list[Any] = []
            for key, _ in node.value:
                if key.value in keys:
                    line = key.start_mark.line + 1
                    raise ValueError(f"{file}, line {line}: the key `{key.value}` is there twice; keep one.")
                keys.append(key.value)
            return node

    text = file.read_text("utf-8")
    try:
        content = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a sweep is a mapping with `tasks`, `algorithms` and `seeds`; see docs/sweeps.md.")
    renamed: Level = _with_new_names(content)
    return renamed


def _with_new_names(value: Any) -> Any:
    """The same with keys of earlier versions under their names of today."""
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
) -> list[Run]:
    """
    List the runs that a sweep means, the first seed of all of them first.

    :param content: What its file says
    :param file: The file, for messages
    :param algorithms: The names of the hyperparameters of each algorithm that there is
    :param output: Where results go, instead of what the file says
    :param cpus: Cores of each run, instead of what the file says
    :param gpus: GPUs of each run, instead of what the file says
    :return: The runs
    :raises ValueError: It names what was wrong, where it stands, and what would have been right.
    """
    return _Grid(content, file, algorithms, output, {"cpus": cpus, "gpus": gpus}).runs()


class _Grid:
    """What a file says, checked as far as it can be without making runs."""

    def __init__(
        self,
        content: Mapping[str, Any],
        file: Path,
        algorithms: Mapping[str, Collection[str]],
        output: Path | None,
        forced: Mapping[str, float | None],
    ) -> None:
        self.file = file
        self.known = {name: set(keys) - NOT_HYPERPARAMETERS for name, keys in algorithms.items()}
        self.forced = {key: value for key, value in forced.items() if value is not None}
        self.top = {key: value for key, value in content.items() if key not in FILE_KEYS}
        for package in self._names(content.get("packages", []), "packages"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise self._error("packages", f"`{package}` cannot be imported ({error}).") from error
        self.packages = list(content.get("packages", []))
        if output is None and not isinstance(content.get("output"), str):
            raise self._error("", "`output` is missing: the folder for the results. Name it here, or give --output.")
        self.output = output or Path(content["output"])
        self.algorithms = self._sections(content, "algorithms", "")
        self.tasks = self._resolve_tasks(self._sections(content, "tasks", ""))
        self.settings: Mapping[str | None, Level] = {None: {}}
        if settings := self._sections(content, "settings", ""):
            self.settings = dict(settings.items())
        for section, entries in (("algorithms", self.algorithms), ("tasks", self.tasks)):
            if not entries:
                close = _meant(section, self.top)
                hint = f" Did you mean it by `{close}`?" if close else ""
                raise self._error("", f"`{section}` is missing: a list of names, or a mapping from names to settings.{hint}")
        self._check_names()

    def runs(self) -> list[Run]:
        """All runs, by seed and then as they stand in the file."""
        cells = [
            self._runs_of(setting, algo, task) for setting in self.settings for algo in self.algorithms for task in self.tasks
        ]
        runs = [run for row in itertools.zip_longest(*cells) for run in row if run is not None]
        if not runs:
            raise self._error("", "this makes no run: all `seeds` are 0 or empty.")
        return runs

    def _check_names(self) -> None:
        for algo in self.algorithms:
            self._must_be_one_of(algo, self.known, "algorithms", "algorithm")
        for name in self.settings:
            if name is not None and (name in self.known or name.startswith(".") or "/" in name or "\\" in name):
                raise self._error("settings", f"`{name}` must be usable as a folder's name, and not be an algorithm's.")
        for where, level in self._nested_levels():
            for algo in self._sections(level, "algorithms", where):
                self._must_be_one_of(algo, self.algorithms, f"{where}.algorithms", "algorithm of this sweep")
            for task in self._sections(level, "tasks", where):
                if not fnmatch.filter(self.tasks, task):
                    self._must_be_one_of(task, self.tasks, f"{where}.tasks", "task of this sweep")

    def _nested_levels(self) -> Iterator[tuple[str, Level]]:
        """The levels that may hold `tasks` or `algorithms`, with their places."""
        for algo, level in self.algorithms.items():
            yield f"algorithms.{algo}", level
        for name, level in self.settings.items():
            yield f"settings.{name}", level
            for algo, inner in self._sections(level, "algorithms", f"settings.{name}").items():
                yield f"settings.{name}.algorithms.{algo}", inner

    def _must_be_one_of(self, name: str, names: Iterable[str], where: str, what: str) -> None:
        if name in names:
            return
        close = _meant(name, names)
        hint = f"did you mean `{close}`?" if close else f"there are: {', '.join(sorted(names))}."
        raise self._error(where, f"`{name}` is no {what}; {hint}")

    def _resolve_tasks(self, entries: Mapping[str, Level]) -> dict[str, tuple[str, Level]]:
        """Environments by id, each with the place and the level of its entry, which may be a pattern."""
        tasks: dict[str, tuple[str, Level]] = {}
        for name, level in entries.items():
            register_environment(name)  # a pattern, too, begins as the ids of its package do
            found = [name] if name in gym.registry else fnmatch.filter(gym.registry, name)
            if not found:
                self._must_be_one_of(name, gym.registry, "tasks", "environment that Gymnasium knows")
            for env_id in found:
                if env_id in tasks:
                    raise self._error("tasks", f"`{env_id}` is named twice, by `{tasks[env_id][0]}` and by `{name}`.")
                tasks[env_id] = (name, level)
        return {env_id: (f"tasks.{name}", level) for env_id, (name, level) in tasks.items()}

    def _sections(self, level: Mapping[str, Any], section: str, where: str) -> dict[str, Level]:
        """The entries of `tasks`, `algorithms` or `settings`, which a list may name without saying anything about them."""
        entries = level.get(section)
        place = f"{where}.{section}".lstrip(".")
        if isinstance(entries, list):
            for name in self._names(entries, place):
                if entries.count(name) > 1:
                    raise self._error(place, f"`{name}` is there twice; keep one.")
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
        """Every level that speaks of a run, with its place, the more specific ones later."""
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
        """A level, and what its `tasks` say of one task."""
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
            raise self._error("", "`seeds` is missing: how many, or a list of them.")
        seeds = self._seeds(values["seeds"], places["seeds"])
        if not seeds:
            return []  # left out: what is said of it need not fit
        options = {key: self._option(key, values[key], places[key]) for key in OPTIONS if key in values and key != "seeds"}
        options = {"cpus": 1, "gpus": 0, **options, **self.forced}
        options.setdefault("device", "cuda" if options["gpus"] else "cpu")
        hyperparameters = {key: value for key, value in values.items() if key not in OPTIONS}
        for key in hyperparameters:
            self._check_key(key, algo, places[key])
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
        return Run(algo, task, seed, setting, folder, tuple(command), **resources)

    def _check_key(self, key: Any, algo: str, where: str) -> None:
        if key in self.known[algo]:
            return
        keys = [*OPTIONS, *(FILE_KEYS if where == "" else ())]
        close = _meant(str(key), [*self.known[algo], *keys])
        hint = f"did you mean `{close}`?" if close else f"hyperparameters of {algo}: {', '.join(sorted(self.known[algo]))}."
        raise self._error(where, f"unknown key `{key}`; {hint} Options: {', '.join(keys)}.")

    def _seeds(self, value: Any, where: str) -> list[int]:
        if type(value) is int and value >= 0:
            return list(range(value))
        if not isinstance(value, list) or not all(type(seed) is int and seed >= 0 for seed in value):
            raise self._error(where, f"`seeds` is {value!r}; expected how many, or a list of whole numbers from 0.")
        if len(set(value)) < len(value):
            raise self._error(where, f"`seeds` is {value!r}: a seed that is there twice would make the same run twice.")
        return value

    def _option(self, key: str, value: Any, where: str) -> Any:
        kind = OPTIONS[key].kind
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and (value > 0 or (key in MAY_BE_NEGATIVE) or (key == "gpus" and value == 0)):
            if kind == "number":
                return value
            if kind == "whole" and int(value) == value:
                return int(value)
        if kind == "text" and isinstance(value, str):
            if key == "conf_file" and value.endswith((".yml", ".yaml", ".py")) and not Path(value).is_file():
                raise self._error(where, f"`conf_file` is {value!r}, which does not exist (seen from {Path.cwd()}).")
            return value
        if kind == "names":
            return self._names(value, f"{where}.{key}".lstrip("."))
        if kind == "mapping" and isinstance(value, dict):
            self._python(value, where, key)
            return value
        raise self._error(where, f"`{key}` is {value!r}; expected {KINDS[kind]}.{_number_in_text(value)}")

    def _names(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self._error(where, f"expected a list of names, not {value!r}.")
        return value

    def _python(self, value: Any, where: str, key: str) -> str:
        """A value as Python writes it, which is how RL Zoo reads its command line."""
        if hint := _number_in_text(value):
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
        raise self._error(where, f"`{key}` holds {value!r}; only numbers, text, lists and mappings can be given to a run.")

    def _error(self, where: str, message: str) -> ValueError:
        return ValueError(f"{self.file}{', ' if where else ''}{where}: {message}")


def _meant(name: str, names: Iterable[str]) -> str | None:
    """The name that somebody may have meant."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def _number_in_text(value: Any) -> str:
    """A hint where YAML reads as text what looks like a number, and nothing elsewhere."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)", value):
        return f" YAML reads that as text: write {float(value)!r}, or !!float {value}."
    return ""
