"""What hyperparameter optimisation searches, in the form that RL Zoo takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Parameters = dict[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """
    The search space of one algorithm.

    :param suggest: From an Optuna trial to its parameters, as Optuna stores them. Parameters that are better searched in
        another form (``one_minus_gamma``, ``batch_size_pow``) have it here.
    """

    suggest: Callable[[Any], Parameters]

    def sample(self, trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> Parameters:
        """
        Draw hyperparameters for a trial.

        :param trial: ``optuna.Trial``
        :param n_actions: Number of action dimensions
        :param n_envs: Number of environments
        :param additional_args: What RL Zoo passes beside
        :return: Arguments of the algorithm. ``policy_kwargs`` are not among them: those of the configuration stay.
        """
        arguments = self.convert(self.suggest(trial))
        for name in arguments.keys() - trial.params.keys():
            trial.set_user_attr(name, arguments[name])  # the true value, beside the form that was searched
        return arguments

    @staticmethod
    def convert(parameters: Parameters) -> Parameters:
        """
        Turn the parameters that Optuna stores into arguments of the algorithm, also for ``--trial-id``.

        :param parameters: As ``suggest`` returned them
        :return: Arguments of the algorithm
        """
        arguments = dict(parameters)
        if "one_minus_gamma" in arguments:
            arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
        if "batch_size_pow" in arguments:
            arguments["batch_size"] = 2 ** arguments.pop("batch_size_pow")
        return arguments


def _suggest_common(trial: Any) -> Parameters:
    """What every offline-to-online algorithm has."""
    return {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.001, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 7, 10),
        "tau": trial.suggest_float("tau", 0.002, 0.05, log=True),
    }


def _suggest_fql(trial: Any) -> Parameters:
    """The paper tuned alpha first of all, and took gamma and the target's aggregation by domain."""
    # The scale of alpha is that of the rewards, unless the loss is normalised: the paper's grids end at 1000, on Adroit at
    # 30000. RL Zoo keeps the configuration there, as text.
    normalized = trial.study.user_attrs.get("normalize_q_loss", "False") not in ("False", "0")
    low, high = (0.03, 10.0) if normalized else (3.0, 30_000.0)
    return {
        "alpha": trial.suggest_float("alpha", low, high, log=True),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 20]),
        **_suggest_common(trial),
    }


FQL_SPACE = SearchSpace(_suggest_fql)
