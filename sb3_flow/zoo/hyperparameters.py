"""RL Zoo's reading of hyperparameters, with our configurations and environments, and with better error messages."""

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
        try:
            found = self.load_trial(self.storage, self.study_name, trial_id)
        except (KeyError, IndexError) as error:
            raise ValueError(f"{self.storage} has no trial {trial_id} in a study {self.study_name!r}.") from error
        print(f"Hyperparameters of trial {trial_id}: {found}")
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
        if self.algo in ALGORITHMS:
            checked = check_entry(saved, ALGORITHMS[self.algo], self._place)
            hyperparams, saved = {**hyperparams, **checked}, OrderedDict({**saved, **checked})
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
        name, place = hyperparams.get("policy"), self._place("policy_kwargs")
        try:
            with parsed_values():
                processed: tuple[dict[str, Any], Any, list[Any], Any] = super()._preprocess_hyperparams(hyperparams)
        except NotAValue as error:
            raise ValueError(
                f"{self._place('')}: {error} Or write dictionaries in YAML: policy_kwargs: {{net_arch: [256, 256]}}."
            ) from error
        known = policy_arguments(ALGORITHMS[self.algo], name) if self.algo in ALGORITHMS else None
        if known is not None:
            check_keys(processed[0].get("policy_kwargs") or {}, known, f"{name} of {self.algo}", place, "policy_kwargs.")
        return processed

    def _place(self, key: str) -> str:
        """The place of a value, for messages."""
        return "-params" if key in (self.custom_hyperparams or ()) else f"{self.config}, entry {self.entry_name!r}"

    def objective(self, trial: Any) -> float:
        """As in RL Zoo, and write the configuration to the study first, because the search space reads it there."""
        for key, value in self._hyperparams.items():
            if key not in trial.study.user_attrs:
                trial.study.set_user_attr(key, str(value))
        return float(super().objective(trial))
