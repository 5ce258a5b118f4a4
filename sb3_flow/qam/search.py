"""The search spaces of QAM and its variants."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, configured, suggest_common


def _suggest_but_temperature(trial: Any) -> Parameters:
    """The paper took pessimism and chunks by domain. Fewer than 10 flow steps fail."""
    arguments = {
        "rho": trial.suggest_categorical("rho", [0.0, 0.5]),
        **suggest_common(trial),
    }
    if configured(trial, "n_steps", "1") == "1":  # returns over several steps are for one action at a time
        arguments["horizon_length"] = trial.suggest_categorical("horizon_length", [1, 5])
    return arguments


def _suggest_qam(trial: Any) -> Parameters:
    """The paper tuned the inverse temperature."""
    return {"inv_temp": trial.suggest_float("inv_temp", 0.1, 30.0, log=True), **_suggest_but_temperature(trial)}


def _suggest_qam_kl(trial: Any) -> Parameters:
    """TRQAM tuned the budget of the divergence instead."""
    return {"kl_budget": trial.suggest_float("kl_budget", 0.1, 10.0, log=True), **_suggest_but_temperature(trial)}


def _suggest_qam_fql(trial: Any) -> Parameters:
    """As QAM, and how close the one-step actor stays to the flow."""
    return {"fql_alpha": trial.suggest_float("fql_alpha", 3.0, 300.0, log=True), **_suggest_qam(trial)}


def _suggest_qam_edit(trial: Any) -> Parameters:
    """As QAM, and how far an action is edited."""
    return {"edit_scale": trial.suggest_float("edit_scale", 0.05, 0.9, log=True), **_suggest_qam(trial)}


QAM_SPACE = SearchSpace(_suggest_qam)
QAM_KL_SPACE = SearchSpace(_suggest_qam_kl)
QAM_FQL_SPACE = SearchSpace(_suggest_qam_fql)
QAM_EDIT_SPACE = SearchSpace(_suggest_qam_edit)
