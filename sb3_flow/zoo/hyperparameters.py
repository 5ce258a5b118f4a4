"""RL Zoo's reading of hyperparameters, with our configurations and environments, and with better error messages."""

import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS, get_callback_list
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.arguments import check_policy
from sb3_flow.common.environments import needs_success_report
from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS, acts_by_sampling
from sb3_flow.zoo.configs import (
    ZOO_KEYS,
    check_entry,
    check_no_options,
    check_noise,
    check_other_entry,
    check_policy_kwargs,
    find_config,
    no_such_config,
    read_entries,
    read_value,
)
from sb3_flow.zoo.entries import find_entry, resolve_entries
from sb3_flow.zoo.nested import check_environment_arguments, naming, wrap
from sb3_flow.zoo.studies import open_study, record, require_trials_of, warn_about_settings
from sb3_flow.zoo.trials import alive, fail_dead_trials
from sb3_flow.zoo.trust import parsed_values
from sb3_flow.zoo.values import NotAValue

REPORT_SUCCESS = "sb3_flow.common.environments.report_success"


class HyperparameterReader(ExperimentManager):
    """
    RL Zoo's experiment manager, which finds our configurations, checks their keys, and enables success rates.

    Flow policies are evaluated as in their papers, by sampled actions; other algorithms as in RL Zoo.

    :param args: As for RL Zoo's manager
    :param config: As for RL Zoo's manager, or the name of a configuration of this package, such as ``"fql_small"``
    :param kwargs: As for RL Zoo's manager
    """

    def __init__(self, *args: Any, config: str | None = None, **kwargs: Any) -> None:
        algorithm = kwargs["algo"] if "algo" in kwargs else args[1]
        super().__init__(*args, **{**kwargs, "config": find_config(config, algorithm)})
        if acts_by_sampling(algorithm):
            self.deterministic_eval = False
        self.entry_name = self.env_name.gym_id
        #: Names of the parameters of a trial that is trained again.
        self.searched: set[str] = set()
        if (self.optimize_hyperparameters or self.trial_id is not None) and algorithm not in HYPERPARAMS_SAMPLER:
            raise ValueError(
                f"{algorithm} has no search space; algorithms with one: {', '.join(sorted(HYPERPARAMS_SAMPLER))}."
            )
        if self.trial_id is not None:
            self._take_trial(self.trial_id)

    def _take_trial(self, trial_id: int) -> None:
        """Read a trial here, because RL Zoo ignores trial 0. The command line has priority."""
        if not (self.storage and self.study_name):
            raise ValueError("--trial-id needs the study of the trial: pass --storage and --study-name.")
        if (study := open_study(self.storage, self.study_name)) is not None:
            require_trials_of(study, self.algo)
        try:
            found = self.load_trial(self.storage, self.study_name, trial_id)
        except (KeyError, IndexError) as error:
            raise ValueError(f"{self.storage} has no trial {trial_id} in a study {self.study_name!r}.") from error
        print(f"Hyperparameters of trial {trial_id}: {found}")
        self.searched = {*found}
        self.custom_hyperparams, self.trial_id = {**found, **(self.custom_hyperparams or {})}, None

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in RL Zoo, with patterns for names, and errors that name the file and the key."""
        try:
            with self._resolved():
                hyperparams, saved = super().read_hyperparameters()
        except (FileNotFoundError, ModuleNotFoundError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name != self.config.split(".")[0]:
                raise  # the module exists, but one of its dependencies does not
            raise no_such_config(self.config) from error
        check_no_options(saved, self._place)
        for key in ZOO_KEYS & saved.keys():
            if read_value(key, saved[key], {}, self._place) is None:
                del saved[key]  # the default; RL Zoo's other scripts expect the key to have a value
        check = check_entry if self.algo in ALGORITHMS else check_other_entry
        hyperparams = check(saved, ALGOS[self.algo], self._place)
        saved = OrderedDict(hyperparams)
        if needs_success_report(self.env_name.gym_id):
            # Also in the saved configuration, so that later scripts use the same wrappers.
            wrappers = hyperparams.get("env_wrapper") or []
            wrappers = [REPORT_SUCCESS, *(wrappers if isinstance(wrappers, list) else [wrappers])]
            hyperparams = {**hyperparams, "env_wrapper": wrappers}
            saved = OrderedDict(sorted({**saved, "env_wrapper": wrappers}.items()))
        return hyperparams, saved

    @contextmanager
    def _resolved(self) -> Iterator[None]:
        """Write a file with the entry of the environment under its id for RL Zoo, which does not know patterns."""
        file, env_id = self.config, self.env_name.gym_id
        if not file.endswith((".yml", ".yaml")):
            yield
            return
        entries = read_entries(file)
        try:
            self.entry_name = find_entry(entries, env_id) or "default"
            resolved = resolve_entries(entries, env_id)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if all(entries.get(name) == entry for name, entry in resolved.items()):
            yield  # RL Zoo reads the same from the file itself
            return
        yaml = require("yaml", "zoo", "Reading a configuration")
        print(f"Entry {self.entry_name!r} of {file}, for {env_id}:")
        with tempfile.TemporaryDirectory() as folder:
            self.config = str(Path(folder) / Path(file).name)
            Path(self.config).write_text(yaml.safe_dump(resolved, sort_keys=False), "utf-8")
            try:
                yield
            finally:
                self.config = file

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any], Any]:
        place, callback = self._place("policy_kwargs"), hyperparams.pop("callback", None)
        wrappers = {key: hyperparams.get(key) for key in ("env_wrapper", "vec_env_wrapper")}
        check_noise(hyperparams, self._place)
        normalize, gamma = hyperparams.get("normalize"), hyperparams.get("gamma")
        if isinstance(normalize, dict) and gamma is not None and normalize.get("gamma", gamma) != gamma:
            raise ValueError(
                f"{self._place('normalize')}: `normalize.gamma` is {normalize['gamma']}, but RL Zoo uses `gamma`, which is "
                f"{gamma}. Leave out `normalize.gamma`."
            )
        if hyperparams.get("normalize") and hyperparams.get("frame_stack") and self.algo in ALGORITHMS:
            raise ValueError(
                f"{self._place('frame_stack')}: `normalize` and `frame_stack` do not go together: RL Zoo would stack "
                "normalized observations, and the replay buffer needs those before. Stack frames by a wrapper: env_wrapper: "
                "[{gymnasium.wrappers.FrameStackObservation: {stack_size: 4}}, gymnasium.wrappers.FlattenObservation]."
            )
        try:
            with parsed_values():
                processed: tuple[dict[str, Any], Any, list[Any], Any] = super()._preprocess_hyperparams(hyperparams)
        except NotAValue as error:
            raise ValueError(
                f"{self._place('')}: {error} Or write dictionaries in YAML: policy_kwargs: {{net_arch: [256, 256]}}."
            ) from error
        given = processed[0].get("policy_kwargs") or {}
        if not isinstance(given, dict):
            raise ValueError(
                f"{place}: `policy_kwargs` is {given!r}; it must be a dictionary, such as {{net_arch: [256, 256]}}."
            )
        policy = processed[0]["policy"]
        try:
            check_policy(ALGOS[self.algo], policy)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._place('policy')}: {error}") from error
        check_policy_kwargs(given, ALGOS[self.algo], policy, place)
        env_wrapper, vec_env_wrapper = (
            partial(wrap, wrapper, base, f"{self._place(key)}: `{key}` is {wrappers[key]!r}") if wrapper is not None else None
            for key, wrapper, base in (("env_wrapper", processed[1], gym.Env), ("vec_env_wrapper", processed[3], VecEnv))
        )
        if callback is not None:
            self.specified_callbacks = callback
        # YAML has no tuples.
        self.monitor_kwargs = {
            key: tuple(value) if isinstance(value, list) else value for key, value in self.monitor_kwargs.items()
        }
        with naming(f"{self._place('callback')}: `callback` is {callback!r}"):
            callbacks = get_callback_list({"callback": callback})
        self._check_env_kwargs()
        self._check_study(processed[0])
        return processed[0], env_wrapper, callbacks, vec_env_wrapper

    def _check_env_kwargs(self) -> None:
        """Check arguments of the environments. RL Zoo does not pass those of the configuration to evaluations."""
        if self._eval_env_kwargs_args is None:
            self.eval_env_kwargs = self.env_kwargs
        for eval_env in (False, True):
            given, place = self._env_kwargs(eval_env)
            check_environment_arguments(given, self.env_name.gym_id, place)

    def _env_kwargs(self, eval_env: bool) -> tuple[dict[str, Any], str]:
        """The arguments of the environments for training or evaluation, and their place, for messages."""
        if eval_env and self._eval_env_kwargs_args is not None:
            return self.eval_env_kwargs, "--eval-env-kwargs"
        return self.env_kwargs, "--env-kwargs" if getattr(self.args, "env_kwargs", None) else self._place("env_kwargs")

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """As in RL Zoo, with an error for arguments that the environment does not know."""
        given, place = self._env_kwargs(eval_env)
        with naming(f"{place}: `env_kwargs` is {given}", "make_env"):
            return super().create_envs(n_envs, eval_env, no_log)

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        """As in RL Zoo, with errors that name the place of the arguments."""
        if self.trained_agent:  # its own statistics are loaded
            return super()._maybe_normalize(env, eval_env)
        what = f"{self._place('normalize')}: `normalize` is {self.normalize_kwargs}"
        if isinstance(env.observation_space, gym.spaces.Dict):
            parts = env.observation_space.spaces
            for key in self.normalize_kwargs.get("norm_obs_keys") or ():
                if key not in parts:
                    raise ValueError(f"{what}: observations have no part {key!r}, only {', '.join(parts)}.")
        with naming(what):
            return super()._maybe_normalize(env, eval_env)

    def _place(self, key: str) -> str:
        """The place of a value, for messages."""
        return "-params" if key in (self.custom_hyperparams or ()) else f"{self.config}, entry {self.entry_name!r}"

    def objective(self, trial: Any) -> float:
        """As in RL Zoo, and write the configuration to the study first, because the search space reads it there."""
        record(trial.study, self.algo, self.env_name.gym_id, self._hyperparams)
        with alive(trial):
            return float(super().objective(trial))

    def hyperparameters_optimization(self) -> None:
        """As in RL Zoo, and mark trials as failed whose processes were killed."""
        self._require_searched()
        try:
            study = open_study(self.storage, self.study_name) if self.storage and self.study_name else None
            if study is not None and (dead := fail_dead_trials(study)):
                print(f"Trials of processes that were killed are marked as failed: {', '.join(map(str, dead))}")
            super().hyperparameters_optimization()
        except json.JSONDecodeError as error:
            raise ValueError(f"--storage {self.storage} is not a journal of Optuna, or it is damaged ({error}).") from error
        except ValueError as error:
            if "No trials are completed yet" not in str(error):
                raise
            raise ValueError(
                "No trial was completed: all of them were pruned or failed, or still run in other processes. The output above "
                "has the reasons; more --n-trials or --max-total-trials continue the study."
            ) from error

    def _check_study(self, hyperparams: dict[str, Any]) -> None:
        """Check that the study, if there is one, is of this algorithm, and was started with these settings."""
        study = open_study(self.storage, self.study_name) if self.storage and self.study_name else None
        if study is not None:
            require_trials_of(study, self.algo, self.env_name.gym_id if self.optimize_hyperparameters else None)
            warn_about_settings(study, hyperparams, self.searched)

    def _require_searched(self) -> None:
        """Reject values of ``-params`` that trials would replace."""
        if self.algo not in ALGORITHMS or not self.custom_hyperparams:
            return
        optuna = require("optuna", "zoo", "The command line of RL Zoo")
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study()
        finally:
            optuna.logging.set_verbosity(verbosity)
        record(study, self.algo, self.env_name.gym_id, self._hyperparams)
        others = {"using_her_replay_buffer": False, "her_kwargs": {}}
        searched = HYPERPARAMS_SAMPLER[self.algo](study.ask(), self.n_actions, self.n_envs, others)
        for name in self.custom_hyperparams:
            if name in searched:
                raise ValueError(
                    f"-params: `{name}` is searched, so that its value would have no effect. Leave it out; `train` can fix it."
                )
