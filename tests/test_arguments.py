"""Arguments are checked by type hints: numbers in other forms are converted, everything else is refused by name."""

import inspect
from typing import Any

import numpy as np
import pytest
from conformance.environments import collect, pendulum
from stable_baselines3 import SAC
from torch import nn

from sb3_flow import FQL, QAM, StreamingFlow
from sb3_flow.baselines import OfflineSAC
from sb3_flow.common.arguments import arguments_of_sb3, checked, checked_value, hints_of, unknown
from sb3_flow.fql import FQLPolicy
from sb3_flow.streaming_flow import StreamingFlowPolicy

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tau": "5e-3"}, 5e-3),
        ({"alpha": "1e-1"}, 0.1),
        ({"learning_rate": "1e-4"}, 1e-4),
        ({"buffer_size": "1e4"}, 10_000),
        ({"buffer_size": 1e4}, 10_000),
        ({"batch_size": np.int64(16)}, 16),
        ({"gamma": np.float32(0.5)}, 0.5),
        ({"seed": 3.0}, 3),
        ({"alpha": 3}, 3),
        ({"normalize_q_loss": np.bool_(True)}, True),
        ({"offline_steps": None}, None),
    ],
    ids=str,
)
def test_numbers_in_other_forms_are_converted(given: dict[str, Any], expected: Any) -> None:
    model = FQL("FlowPolicy", pendulum(), **SMALL, **given)
    (name,) = given
    assert getattr(model, name) == expected and type(getattr(model, name)) is type(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"buffer_size": 1.5}, "`buffer_size` is 1.5; it must be a whole number"),
        ({"batch_size": None}, "`batch_size` is None; it must be a whole number"),
        ({"batch_size": True}, "`batch_size` is True; it must be a whole number"),
        ({"tau": "small"}, "`tau` is 'small'; it must be a number"),
        ({"gamma": float("nan")}, "`gamma` is nan"),
        ({"normalize_q_loss": "yes"}, "`normalize_q_loss` is 'yes'; it must be True or False"),
        ({"alhpa": 3.0}, "FQL has no argument `alhpa`; did you mean `alpha`"),
        ({"ent_coef": 0.1}, "FQL has no argument `ent_coef`: .*tune"),
        ({"use_sde": True}, "FQL has no argument `use_sde`: there is no gSDE"),
        ({"replay_buffer_class": SAC}, "`replay_buffer_class`: .*`dataset`"),
        ({"net_arch": [16]}, "`net_arch`: it belongs to the policy: policy_kwargs="),
        ({"activation_fn": nn.ReLU}, "`activation_fn`: .*'activation': 'relu'"),
        ({"n_critics": 3}, "`n_critics`: it belongs to the policy: policy_kwargs={'n_critics': ...}"),
        ({"clip_range": 0.2}, "`clip_range`, which Stable-Baselines3 has for PPO; leave it out"),
        ({"n_epochs": 3}, "`n_epochs`: .*`gradient_steps`"),
        ({"policy_delay": 2}, "`policy_delay`: all networks are updated in each update"),
        ({"n_envs": 4}, "`n_envs`: .*make_vec_env"),
        ({"chunk_size": 5}, "`chunk_size`: write `horizon_length`"),
        ({"policy_kwargs": "dict(net_arch=[16])"}, "`policy_kwargs` is 'dict.*; it must be a dictionary"),
        ({"policy_kwargs": {"net_arch": 64}}, r"`net_arch` is 64; expected a list of widths"),
        ({"policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}}}, r"`net_arch` has the keys \['pi', 'vf'\]"),
        ({"policy_kwargs": {"net_arch": [8, -1]}}, r"`net_arch` is \[8, -1\]"),
        (
            {"policy_kwargs": {"flow_steps": 3}},
            "`flow_steps` in `policy_kwargs` is an argument of FQL: pass",
        ),
        (
            {"policy_kwargs": {"net_ark": [8]}},
            r"FQLPolicy \(`policy_kwargs`\) has no.*`net_ark`; did you mean `net_arch`",
        ),
        ({"policy_kwargs": {"share_features_extractor": True}}, "`share_features_extractor`: each network has"),
        ({"policy_kwargs": {"squash_output": True}}, "`squash_output`"),
        ({"policy_kwargs": {"n_critics": 2.5}}, "`n_critics` is 2.5; it must be a whole number"),
        ({"policy_kwargs": {"activation_fn": nn.Softplus}}, "`activation_fn` in `policy_kwargs` is .*Softplus.*relu"),
    ],
    ids=str,
)
def test_everything_else_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        FQL("FlowPolicy", pendulum(), **{**SMALL, **given})


def test_arguments_of_stable_baselines3_are_not_taken_for_others() -> None:
    """Each argument of its algorithms and policies is known here, or explained; none is taken for a similar name."""
    for cls in (FQL, FQLPolicy, StreamingFlow, StreamingFlowPolicy):
        hints = hints_of(cls)
        messages = {name: unknown(cls.__name__, name, hints, cls) for name in arguments_of_sb3() if name not in hints}
        assert {"clip_range", "ortho_init", "policy_delay"} <= messages.keys()
        assert [message for message in messages.values() if "did you mean" in message or "expected one of" in message] == []


def test_what_changes_nothing_is_accepted() -> None:
    """SB3's own defaults, and the dictionary that SAC was given, into which it writes ``use_sde``."""
    FQL("FlowPolicy", pendulum(), use_sde=False, optimize_memory_usage=False, replay_buffer_class=None, **SMALL)
    shared = {"net_arch": [8]}
    SAC("MlpPolicy", pendulum(), policy_kwargs=shared, buffer_size=10, device="cpu")
    assert "use_sde" in shared
    FQL("FlowPolicy", pendulum(), policy_kwargs=shared, device="cpu")


def test_policy_kwargs_of_stable_baselines3_are_understood() -> None:
    given = {"net_arch": {"pi": [8, 4], "qf": [6]}, "activation_fn": nn.Tanh}
    policy = QAM("FlowPolicy", pendulum(), policy_kwargs=given, device="cpu").policy
    assert [layer.out_features for layer in policy.flow.net.layers] == [8, 4, 1]
    assert [weight.shape[-1] for weight in policy.critic.net.weights] == [6, 1]
    assert policy.activation == "tanh"
    assert given == {"net_arch": {"pi": [8, 4], "qf": [6]}, "activation_fn": nn.Tanh}
    again = type(policy)(**policy._get_constructor_parameters())
    assert (again.net_arch, again.value_arch, again.activation) == ([8, 4], [6], "tanh")


def test_arguments_of_the_online_phase_are_refused_where_there_is_none() -> None:
    with pytest.raises(TypeError, match="StreamingFlow has no argument `buffer_size`: it learns from data only"):
        StreamingFlow("FlowPolicy", pendulum(), dataset=collect(pendulum), buffer_size=10)


def test_the_offline_baselines_take_the_arguments_of_stable_baselines3() -> None:
    model = OfflineSAC("MlpPolicy", pendulum(), ent_coef=0.1, policy_kwargs={"net_arch": [8]}, device="cpu")
    assert model.ent_coef == 0.1
    with pytest.raises(TypeError, match="`ent_coeff`; did you mean `ent_coef`"):
        OfflineSAC("MlpPolicy", pendulum(), ent_coeff=0.1)


def test_positional_arguments_and_those_of_subclasses_are_checked() -> None:
    class Mine(FQL):
        def __init__(self, policy: Any, env: Any, learning_rate: float = 3e-4, *, mine: int = 1, **kwargs: Any) -> None:
            self.mine = mine
            super().__init__(policy, env, learning_rate, **kwargs)

    model = Mine("FlowPolicy", pendulum(), "1e-3", mine="2", alpha="3", **SMALL)
    assert (model.learning_rate, model.mine, model.alpha) == (1e-3, 2, 3)
    with pytest.raises(TypeError, match="Mine has no argument `mime`; did you mean `mine`"):
        Mine("FlowPolicy", pendulum(), mime=1, **SMALL)


def test_signatures_are_those_of_the_constructors() -> None:
    assert list(inspect.signature(FQL).parameters)[:4] == ["policy", "env", "learning_rate", "alpha"]
    assert {"alpha", "dataset", "buffer_size", "compile"} <= hints_of(FQL).keys()
    assert {"net_arch", "flow_steps", "encode_time_dim"} <= hints_of(FQLPolicy).keys()
    assert "use_sde" not in hints_of(FQL) and "squash_output" not in hints_of(FQLPolicy)


def test_values_of_other_types_are_left_to_their_own_checks() -> None:
    schedule = lambda left: left  # noqa: E731
    assert checked_value("learning_rate", schedule, float | type(schedule)) is schedule
    assert checked_value("train_freq", [2, "episode"], int | tuple[int, str]) == (2, "episode")
    assert checked(FQL, {"dataset": [1]}) == {"dataset": [1]}


@pytest.mark.parametrize("n_stack", [1, 4])
def test_memory_of_images_counts_each_frame_once(n_stack: int) -> None:
    """84 x 84 gray images: 7,056 bytes a transition, whether frames are stacked or not, and a hundredth more for the ends."""
    from stable_baselines3.common.envs import FakeImageEnv
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

    from sb3_flow.common.vec_envs import SLACK, images_memory

    env: VecEnv = DummyVecEnv([lambda: FakeImageEnv(screen_height=84, screen_width=84, n_channels=1, discrete=False)])
    if n_stack > 1:
        env = VecFrameStack(env, n_stack, channels_order="first")
    assert images_memory(env, 1000) == int(7056 * 1000 * (1 + SLACK))
