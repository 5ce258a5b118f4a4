"""Search spaces of hyperparameter optimization, in RL Zoo's format."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Parameters = dict[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """
    The search space of one algorithm.

    :param suggest: Maps an Optuna trial to its parameters, as Optuna stores them. Parameters that are searched in another form
        (``one_minus_gamma``, ``batch_size_pow``) have this form here.
    """

    suggest: Callable[[Any], Parameters]

    def sample(self, trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> Parameters:
        """
        Draw hyperparameters for a trial.

        :param trial: ``optuna.Trial``
        :param n_actions: Number of action dimensions
        :param n_envs: Number of environments
        :param additional_args: Further arguments of RL Zoo
        :return: Arguments of the algorithm, without ``policy_kwargs``, which are those of the configuration
        """
        arguments = self.convert(self.suggest(trial))
        for name in arguments.keys() - trial.params.keys():
            trial.set_user_attr(name, arguments[name])  # the value, in addition to the form that was searched
        return arguments

    @staticmethod
    def convert(parameters: Parameters) -> Parameters:
        """
        Convert the parameters that Optuna stores to arguments of the algorithm, also for ``--trial-id``.

        :param parameters: As ``suggest`` returned them
        :return: Arguments of the algorithm
        """
        arguments = dict(parameters)
        if "one_minus_gamma" in arguments:
            arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
        if "batch_size_pow" in arguments:
            arguments["batch_size"] = 2 ** arguments.pop("batch_size_pow")
        return arguments


def suggest_common(trial: Any) -> Parameters:
    """Parameters of all algorithms with critics: discount factor, learning rate, batch size, ``tau``."""
    return {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.001, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 7, 10),
        "tau": trial.suggest_float("tau", 0.002, 0.05, log=True),
    }


def configured(trial: Any, name: str, default: str) -> str:
    """A value of the configuration. RL Zoo stores it in the study, as text."""
    return str(trial.study.user_attrs.get(name, default))
