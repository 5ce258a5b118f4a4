"""What `optimize` searches: arguments that exist, over the ranges of the papers, and the same for --trial-id."""

from typing import Any

import pytest

import sb3_flow
from sb3_flow.common.arguments import hints_of
from sb3_flow.common.search import SearchSpace
from sb3_flow.zoo.algorithms import ALGORITHMS, SEARCH_SPACES

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)

#: What all variants of QAM have.
QAM: dict[str, tuple[Any, ...]] = {
    "inv_temp": (0.1, 0.3, 1, 3, 10, 30),
    "rho": (0.0, 0.5),
    "horizon_length": (1, 5),
    "gamma": (0.99, 0.995),
    "learning_rate": (3e-4,),
    "batch_size": (256,),
    "tau": (0.005,),
}
#: What the papers tuned or chose by task, in the form that the algorithm takes; ``normalize_q_loss`` is the configuration.
PUBLISHED: list[tuple[str, bool, dict[str, tuple[Any, ...]]]] = [
    (
        "fql",
        False,
        {
            "alpha": (3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000),
            "gamma": (0.99, 0.995),
            "q_agg": ("mean", "min"),
            "flow_steps": (10,),
            "learning_rate": (3e-4,),
            "batch_size": (256,),
            "tau": (0.005,),
        },
    ),
    ("fql", True, {"alpha": (0.03, 0.1, 0.3, 1, 3, 10)}),
    ("qam", False, QAM),
    ("qam_kl", False, {**{name: values for name, values in QAM.items() if name != "inv_temp"}, "kl_budget": (0.5, 1)}),
    # RQL: the weights, expectiles and pessimism of its release.
    ("rql", False, {"alpha": (0.1, 0.3, 1, 3, 10), "expectile": (0.5, 0.7, 0.9), "rho": (0, 0.5), "horizon_length": (1, 5)}),
    ("qam_edit", False, {**QAM, "edit_scale": (0.1, 0.9)}),
    ("qam_fql", False, {**QAM, "fql_alpha": (3, 30, 300)}),
    # Nothing is published of Decision Flow: GFP's alpha over the size of an action, of 1 to 30 dimensions; twice that.
    ("decision_flow", False, {"fm_coef": (0.01 / 30, 10), "flow_steps": (10, 30), "q_agg": ("mean", "min")}),
    ("decision_flow_div", False, {"beta": (0.02 / 30, 20), "on_policy_share": (0.0, 0.5), "tau": (0.005,)}),
    (
        "gfp",
        True,
        {
            "alpha": (0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            "eta": (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1),
            "gamma": (0.99, 0.995, 0.999),
            "q_agg": ("mean", "min"),
            "target_agg": ("actor", "mean"),
            "guidance_agg": ("actor", "min"),
            "flow_steps": (10, 30),
            "learning_rate": (3e-4,),
            "batch_size": (256, 1024),
            "tau": (0.005,),
        },
    ),
    (
        "streaming_flow",
        False,
        {
            "k": (0.0, 2.5),
            "sigma_0": (0.1, 0.2),
            "n_action_steps": (8,),
            "learning_rate": (1e-4,),
            "batch_size": (256, 1024),
        },
    ),
]
#: How a searched parameter stands for an argument.
SEARCHED_AS = {
    "gamma": ("one_minus_gamma", lambda gamma: 1 - gamma),
    "batch_size": ("batch_size_pow", lambda size: size.bit_length() - 1),
}


def sample(space: SearchSpace, normalized: bool = False, n_steps: int = 1) -> tuple[dict[str, Any], Any]:
    """Arguments of a trial of a new study whose configuration RL Zoo has written, and the trial."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.set_user_attr("normalize_q_loss", str(normalized))
    study.set_user_attr("n_steps", str(n_steps))
    trial = study.ask()
    return space.sample(trial, 2, 1, {}), trial


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_every_key_is_an_argument(name: str) -> None:
    arguments, _ = sample(SEARCH_SPACES[name])
    assert arguments and set(arguments) <= hints_of(ALGORITHMS[name]).keys()


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_a_trial_is_converted_to_what_it_trained_with(name: str) -> None:
    space = SEARCH_SPACES[name]
    arguments, trial = sample(space)
    assert space.convert(trial.params) == arguments
    assert {**trial.params, **trial.user_attrs}.items() >= arguments.items()  # what a trial trained with can be looked up
    expected = {"one_minus_gamma", "batch_size_pow"} if ALGORITHMS[name].needs_rewards else {"batch_size_pow"}
    assert trial.params.keys() - arguments.keys() == expected


def test_conversion() -> None:
    stored = {"one_minus_gamma": 0.25, "batch_size_pow": 5, "alpha": 3.0}
    assert SearchSpace.convert(stored) == {"gamma": 0.75, "batch_size": 32, "alpha": 3.0}
    assert stored == {"one_minus_gamma": 0.25, "batch_size_pow": 5, "alpha": 3.0}


@pytest.mark.parametrize(("name", "normalized", "published"), PUBLISHED)
def test_ranges_cover_what_papers_tuned(name: str, normalized: bool, published: dict[str, tuple[Any, ...]]) -> None:
    _, trial = sample(SEARCH_SPACES[name], normalized)
    for argument, values in published.items():
        searched, convert = SEARCHED_AS.get(argument, (argument, lambda value: value))
        distribution = trial.distributions[searched]
        for value in map(convert, values):
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                assert value in distribution.choices
            else:
                assert distribution.low <= value <= distribution.high, (argument, value)


def test_alpha_follows_the_scale_of_the_loss() -> None:
    assert sample(SEARCH_SPACES["fql"], normalized=True)[1].distributions["alpha"].high <= 10
    assert sample(SEARCH_SPACES["fql"], normalized=False)[1].distributions["alpha"].low >= 1


@pytest.mark.parametrize("name", [name for name, cls in ALGORITHMS.items() if cls is sb3_flow.QAM])
def test_returns_over_several_steps_leave_chunks_alone(name: str) -> None:
    assert "horizon_length" not in sample(SEARCH_SPACES[name], n_steps=20)[0]  # the constructor refuses both


def test_variants_of_qam_search_what_makes_them_one() -> None:
    values = {name: sample(SEARCH_SPACES[name])[0] for name in ("qam", "qam_kl", "qam_edit", "qam_fql")}
    assert {name for name, found in values.items() if "kl_budget" in found} == {"qam_kl"}
    assert {name for name, found in values.items() if "inv_temp" not in found} == {"qam_kl"}  # the constructor refuses both
    assert {name: (found.get("edit_scale", 0) > 0, found.get("fql_alpha", 0) > 0) for name, found in values.items()} == {
        "qam": (False, False),
        "qam_kl": (False, False),
        "qam_edit": (True, False),
        "qam_fql": (False, True),
    }
