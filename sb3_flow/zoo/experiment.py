"""RL Zoo's experiment manager, as flow policies and offline data need it. Imported only where RL Zoo is."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import yaml
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.callbacks import EvalCallback

from sb3_flow.common.environments import needs_success_report
from sb3_flow.zoo.callbacks import HeadEvalCallback
from sb3_flow.zoo.configs import check_entry, config_path
from sb3_flow.zoo.registration import ALGORITHMS

REPORT_SUCCESS = "sb3_flow.common.environments.report_success"


class FlowExperimentManager(ExperimentManager):
    """
    Reads our configurations, checks their keys, and reports success rates. Other algorithms are left as they are.

    Our algorithms are evaluated as their papers do it, by sampled actions.

    :param args: As RL Zoo's, like all arguments but these:
    :param run_id: Number of the run's folder, ``<log folder>/<algorithm>/<environment>_<run_id>``; None: the next free one
    :param eval_heads: Ways to act, beside the usual one, that are evaluated too; the results go to
        ``<log folder>/<algorithm>-<head>/``, as if it were another algorithm.
    """

    def __init__(
        self, *args: Any, run_id: int | None = None, eval_heads: tuple[str, ...] = (), config: str | None = None, **kwargs: Any
    ) -> None:
        algorithm = kwargs["algo"] if "algo" in kwargs else args[1]
        if config is None and algorithm in ALGORITHMS:
            config = str(config_path(algorithm))
        super().__init__(*args, **{**kwargs, "config": config})
        self.eval_heads = eval_heads
        if run_id is not None:
            self.save_path = str(Path(self.log_path) / f"{self.env_name}_{run_id}")
            self.params_path = f"{self.save_path}/{self.env_name}"
        if algorithm in ALGORITHMS:
            self.deterministic_eval = False

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As RL Zoo does, with errors that name the file and the key."""
        try:
            hyperparams, saved = super().read_hyperparameters()
        except yaml.YAMLError as error:
            raise ValueError(f"{self.config} is not valid YAML: {error}") from error
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.config} does not exist; --conf-file takes a YAML file with an entry per environment."
            ) from error
        except ModuleNotFoundError as error:
            raise ValueError(
                f"--conf-file {self.config}: it must end in .yml, .yaml or .py, or be a Python module."
            ) from error
        entry_name = self.env_name.gym_id
        if self.algo in ALGORITHMS:
            check_entry(saved, ALGORITHMS[self.algo], entry_name, self.config, set(self.custom_hyperparams or ()))
        if needs_success_report(entry_name):
            # In the saved configuration too, so that whatever reads it later wraps the environment alike.
            wrappers = hyperparams.get("env_wrapper") or []
            wrappers = [REPORT_SUCCESS, *(wrappers if isinstance(wrappers, list) else [wrappers])]
            hyperparams = {**hyperparams, "env_wrapper": wrappers}
            saved = OrderedDict(sorted({**saved, "env_wrapper": wrappers}.items()))
        return hyperparams, saved

    def create_callbacks(self) -> None:
        """As RL Zoo does, and one more evaluation for each of ``eval_heads``."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        if not any(isinstance(callback, EvalCallback) for callback in self.callbacks):
            return
        for head in self.eval_heads:
            folder = Path(self.log_folder) / f"{self.algo}-{head}" / Path(self.save_path).name
            self.callbacks.append(
                HeadEvalCallback(
                    head,
                    self.create_envs(self.n_eval_envs, eval_env=True),
                    n_eval_episodes=self.n_eval_episodes,
                    eval_freq=self.eval_freq,
                    log_path=str(folder),
                    deterministic=self.deterministic_eval,
                )
            )
