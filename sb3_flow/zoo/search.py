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


def _configured(trial: Any, name: str, default: str) -> str:
    """A value of the configuration. RL Zoo keeps it in the study, as text."""
    return str(trial.study.user_attrs.get(name, default))


def _suggest_fql(trial: Any) -> Parameters:
    """The paper tuned alpha first of all, and took gamma and the target's aggregation by domain."""
    # The scale of alpha is that of the rewards, unless the loss is normalised: the paper's grids end at 1000, on Adroit at
    # 30000.
    normalized = _configured(trial, "normalize_q_loss", "False") not in ("False", "0")
    low, high = (0.03, 10.0) if normalized else (3.0, 30_000.0)
    return {
        "alpha": trial.suggest_float("alpha", low, high, log=True),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 20]),
        **_suggest_common(trial),
    }


def _suggest_qam(trial: Any) -> Parameters:
    """The paper tuned the inverse temperature, and took pessimism and chunks by domain. Fewer than 10 flow steps fail."""
    arguments = {
        "inv_temp": trial.suggest_float("inv_temp", 0.1, 30.0, log=True),
        "rho": trial.suggest_categorical("rho", [0.0, 0.5]),
        **_suggest_common(trial),
    }
    if _configured(trial, "n_steps", "1") == "1":  # returns over several steps are for one action at a time
        arguments["horizon_length"] = trial.suggest_categorical("horizon_length", [1, 5])
    return arguments


def _suggest_qam_fql(trial: Any) -> Parameters:
    """As QAM, and how close the one-step actor stays to the flow."""
    return {"fql_alpha": trial.suggest_float("fql_alpha", 3.0, 300.0, log=True), **_suggest_qam(trial)}


def _suggest_qam_edit(trial: Any) -> Parameters:
    """As QAM, and how far an action is edited."""
    return {"edit_scale": trial.suggest_float("edit_scale", 0.05, 0.9, log=True), **_suggest_qam(trial)}


def _suggest_gfp(trial: Any) -> Parameters:
    """The paper tuned alpha and eta, and took the aggregations by domain."""
    return {
        "alpha": trial.suggest_float("alpha", 0.01, 10.0, log=True),
        "eta": trial.suggest_float("eta", 1e-6, 0.1, log=True),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "target_agg": trial.suggest_categorical("target_agg", ["actor", "mean"]),
        "guidance_agg": trial.suggest_categorical("guidance_agg", ["actor", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 30]),
        **_suggest_common(trial),
    }


def _suggest_fpmd(trial: Any) -> Parameters:
    """How fast the flow learns, and how the noise of exploration, which is the temperature as well, falls."""
    return {
        "policy_learning_rate": trial.suggest_float("policy_learning_rate", 1e-4, 1e-3, log=True),
        "target_entropy_scale": trial.suggest_float("target_entropy_scale", 0.5, 2.0),
        "alpha_interval": trial.suggest_categorical("alpha_interval", [25, 100, 250]),
        "weight_mode": trial.suggest_categorical("weight_mode", ["release", "temp", "advantage"]),
        "reward_scale": trial.suggest_float("reward_scale", 0.05, 1.0, log=True),
        "particles": trial.suggest_categorical("particles", [8, 16, 32]),
        **_suggest_common(trial),
    }


def _suggest_swfp(trial: Any) -> Parameters:
    """How far, how often and how wide; the stages before are those of the configuration."""
    return {
        "radius": trial.suggest_float("radius", 0.02, 0.2, log=True),
        "h_max": trial.suggest_float("h_max", 0.02, 0.5, log=True),
        "entropy_coef": trial.suggest_float("entropy_coef", 1e-3, 0.1, log=True),
        "n_blocks": trial.suggest_categorical("n_blocks", [2, 4, 8]),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        **_suggest_common(trial),
    }


def _suggest_inner(trial: Any) -> Parameters:
    """What both variants of Decision Flow have. Nothing is published; each weight spans GFP's alpha over an action's size."""
    return {
        "on_policy_share": trial.suggest_categorical("on_policy_share", [0.0, 0.5]),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 30]),
        **_suggest_common(trial),
    }


def _suggest_decision_flow(trial: Any) -> Parameters:
    """How close the flow stays to the data, first of all."""
    return {"fm_coef": trial.suggest_float("fm_coef", 1e-4, 10.0, log=True), **_suggest_inner(trial)}


def _suggest_decision_flow_div(trial: Any) -> Parameters:
    """How close the flow stays to its clone, first of all."""
    return {"beta": trial.suggest_float("beta", 2e-4, 20.0, log=True), **_suggest_inner(trial)}


def _suggest_streaming_flow(trial: Any) -> Parameters:
    """How thin the tube is, how strongly it pulls, and how often to plan. There are no critics, and no rewards."""
    horizon = int(_configured(trial, "horizon_length", "16"))
    return {
        "k": trial.suggest_categorical("k", [k for k in (0.0, 1.0, 2.5, 5.0, 10.0) if k < horizon]),
        "sigma_0": trial.suggest_categorical("sigma_0", [0.05, 0.1, 0.2]),
        "n_action_steps": trial.suggest_categorical("n_action_steps", [n for n in (1, 2, 4, 8) if n <= horizon]),
        "learning_rate": trial.suggest_float("learning_rate", 3e-5, 1e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 7, 10),
    }


def _suggest_streaming_flow_stochastic(trial: Any) -> Parameters:
    """As without latents, and how far these move actions."""
    return {"sigma_1": trial.suggest_categorical("sigma_1", [0.2, 0.4, 0.8]), **_suggest_streaming_flow(trial)}


def _suggest_flow_opt(trial: Any) -> Parameters:
    """How the networks are trained; nothing is published. The filter's constants belong together: search them apart."""
    return {
        "flow_fraction": trial.suggest_float("flow_fraction", 0.5, 1.0),
        "imitation_fraction": trial.suggest_categorical("imitation_fraction", [0.0, 0.2, 1.0]),
        "unrolled_iterations": trial.suggest_categorical("unrolled_iterations", [5, 10, 15]),
        "tau": trial.suggest_float("tau", 3e-4, 1e-2, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 2e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 6, 9),
    }


DECISION_FLOW_SPACE = SearchSpace(_suggest_decision_flow)
DECISION_FLOW_DIV_SPACE = SearchSpace(_suggest_decision_flow_div)
FLOW_OPT_SPACE = SearchSpace(_suggest_flow_opt)
FPMD_SPACE = SearchSpace(_suggest_fpmd)
FQL_SPACE = SearchSpace(_suggest_fql)
GFP_SPACE = SearchSpace(_suggest_gfp)
QAM_SPACE = SearchSpace(_suggest_qam)
QAM_EDIT_SPACE = SearchSpace(_suggest_qam_edit)
QAM_FQL_SPACE = SearchSpace(_suggest_qam_fql)
STREAMING_FLOW_SPACE = SearchSpace(_suggest_streaming_flow)
STREAMING_FLOW_STOCHASTIC_SPACE = SearchSpace(_suggest_streaming_flow_stochastic)
SWFP_SPACE = SearchSpace(_suggest_swfp)
