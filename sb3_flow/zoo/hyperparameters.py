"""How RL Zoo reads hyperparameters, with our files, our environments, and errors that say what is wrong where."""

import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER

from sb3_flow.common.arguments import policy_arguments
from sb3_flow.common.environments import needs_success_report
from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS, acts_by_sampling
from sb3_flow.zoo.configs import check_entry, check_keys, find_config, no_such_config, read_entries
from sb3_flow.zoo.entries import find_entry, resolve_entries

REPORT_SUCCESS = "sb3_flow.common.environments.report_success"


class HyperparameterReader(ExperimentManager):
    """
    Finds our configurations, checks their keys, and has success rates reported.

    Flow policies are evaluated as their papers do it, by sampled actions; other algorithms as RL Zoo does.

    :param args: As RL Zoo's, like all arguments but this:
    :param config: As RL Zoo's, or the name of a file of ours, such as ``"fql_small"``
    """

    def __init__(self, *args: Any, config: str | None = None, **kwargs: Any) -> None:
        algorithm = kwargs["algo"] if "algo" in kwargs else args[1]
        super().__init__(*args, **{**kwargs, "config": find_config(config, algorithm)})
        if acts_by_sampling(algorithm):
            self.deterministic_eval = False
        self.entry_name = self.env_name.gym_id
        if (self.optimize_hyperparameters or self.trial_id is not None) and algorithm not in HYPERPARAMS_SAMPLER:
            raise ValueError(
                f"{algorithm} has no search space; those that have one: {', '.join(sorted(HYPERPARAMS_SAMPLER))}."
            )
        if self.trial_id is not None:
            self._take_trial(self.trial_id)

    def _take_trial(self, trial_id: int) -> None:
        """RL Zoo overlooks trial 0, so that all of them are read here. What the command line says goes before them."""
        if not (self.storage and self.study_name):
            raise ValueError("--trial-id needs the study that the trial is of: give --storage and --study-name.")
        try:
            found = self.load_trial(self.storage, self.study_name, trial_id)
        except (KeyError, IndexError) as error:
            raise ValueError(f"{self.storage} has no trial {trial_id} of a study {self.study_name!r}.") from error
        print(f"Hyperparameters of trial {trial_id}: {found}")
        self.custom_hyperparams, self.trial_id = {**found, **(self.custom_hyperparams or {})}, None

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As RL Zoo does, with patterns for names, and errors that name the file and the key."""
        try:
            with self._resolved():
                hyperparams, saved = super().read_hyperparameters()
        except (FileNotFoundError, ModuleNotFoundError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name != self.config.split(".")[0]:
                raise  # the module is there, but something that it needs itself is missing
            raise no_such_config(self.config) from error
        if self.algo in ALGORITHMS:
            checked = check_entry(saved, ALGORITHMS[self.algo], self._place)
            hyperparams, saved = {**hyperparams, **checked}, OrderedDict({**saved, **checked})
        if needs_success_report(self.env_name.gym_id):
            # In the saved configuration too, so that whatever reads it later wraps the environment alike.
            wrappers = hyperparams.get("env_wrapper") or []
            wrappers = [REPORT_SUCCESS, *(wrappers if isinstance(wrappers, list) else [wrappers])]
            hyperparams = {**hyperparams, "env_wrapper": wrappers}
            saved = OrderedDict(sorted({**saved, "env_wrapper": wrappers}.items()))
        return hyperparams, saved

    @contextmanager
    def _resolved(self) -> Iterator[None]:
        """Give RL Zoo, which looks for the id alone, a file with the entry of the environment under its id."""
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
            yield  # RL Zoo reads the same
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
        name, place = hyperparams.get("policy"), self._place("policy_kwargs")
        try:
            processed: tuple[dict[str, Any], Any, list[Any], Any] = super()._preprocess_hyperparams(hyperparams)
        except (NameError, SyntaxError) as error:
            raise ValueError(
                f"{self._place('')}: a text that RL Zoo evaluates as Python cannot be ({error}). Write dictionaries in YAML: "
                "policy_kwargs: {net_arch: [256, 256]}."
            ) from error
        known = policy_arguments(ALGORITHMS[self.algo], name) if self.algo in ALGORITHMS else None
        if known is not None:
            check_keys(processed[0].get("policy_kwargs") or {}, known, f"{name} of {self.algo}", place, "policy_kwargs.")
        return processed

    def _place(self, key: str) -> str:
        """Where a value was given, for messages."""
        return "-params" if key in (self.custom_hyperparams or ()) else f"{self.config}, entry {self.entry_name!r}"

    def objective(self, trial: Any) -> float:
        """As RL Zoo does. The search space reads the configuration from the study, which another process may still write."""
        for key, value in self._hyperparams.items():
            if key not in trial.study.user_attrs:
                trial.study.set_user_attr(key, str(value))
        return float(super().objective(trial))
