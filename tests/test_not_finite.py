"""Numbers that are not finite are neither executed, nor stored, nor saved, and messages say where they come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.case import AlgorithmCase, parameters
from conformance.environments import collect, pendulum, pendulums
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_flow import FQL, StreamingFlow
from sb3_flow.common.checkpoints import TrainingCheckpoint, checkpoints

SMALL: dict[str, Any] = {
    **{"policy_kwargs": {"net_arch": [8]}, "batch_size": 4, "learning_starts": 2, "buffer_size": 100},
    **{"device": "cpu", "seed": 0},
}
NAN = float("nan")


class Faulty(gym.Wrapper):
    """
    Its observations are NaN, or another value, at given steps, of which the first reset is number 0; it records what it
    executes.
    """

    def __init__(self, env: gym.Env, *faults: int, value: float = NAN) -> None:
        super().__init__(env)
        self.faults, self.value = faults, value
        self.count, self.executed = 0, list[np.ndarray]()

    def _seen(self, observation: np.ndarray) -> np.ndarray:
        fault = self.count in self.faults
        self.count += 1
        return np.full_like(observation, self.value) if fault else observation

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return self._seen(observation), info

    def step(self, action: Any) -> Any:
        self.executed.append(action)
        observation, *rest = self.env.step(action)
        return self._seen(observation), *rest


@pytest.mark.parametrize("fault", [0, 1, 4, 7])
@pytest.mark.one_variant
def test_observations(online_algorithm: AlgorithmCase, fault: int) -> None:
    """At the first reset, while actions are random, later, and at the reset after an episode of six steps."""
    env = Faulty(pendulum(6), fault)
    model = online_algorithm.make(env, learning_starts=3)
    match = (
        "The first observation of an episode" if fault == 0 else f"After {min(fault, 6)} environment steps, the observation"
    )
    with pytest.raises(ValueError, match=f"{match} of environment 0 has the value nan"):
        model.learn(20)
    assert np.isfinite(env.executed).all() and len(env.executed) == min(fault, 6)
    assert len(model.replay_buffer) == max(min(fault, 6) - 1, 0) and model.replay_buffer.not_finite() is None


@pytest.mark.parametrize("fault", [0, 3, 6, 7])
def test_the_environment_is_named(fault: int) -> None:
    """At the first reset, at a step, at the last step of an episode, and at the reset after it."""
    env = DummyVecEnv([pendulum, pendulum, lambda: Faulty(pendulum(6), fault)])
    where = {0: "The first observation of an episode of environment 2"}.get(fault, "the observation of environment 2")
    with pytest.raises(ValueError, match=f"{where}( at the end of the episode)? has the value nan"):
        FQL("FlowPolicy", env, **SMALL).learn(40)


@pytest.mark.one_variant
def test_action_noise(online_algorithm: AlgorithmCase) -> None:
    env = Faulty(pendulum())
    model = online_algorithm.make(env, action_noise=NormalActionNoise(np.zeros(1), np.full(1, NAN)))
    with pytest.raises(ValueError, match="After 1 environment steps, an action with `action_noise` has the value nan"):
        model.learn(5)
    assert env.executed == []


@pytest.mark.parametrize("bad", [NAN, np.inf, -np.inf])
def test_predict(case: AlgorithmCase, bad: float) -> None:
    """A bad observation raises; the state is as before, and the next good ones are acted on."""
    model, env = case.fresh(), case.environment()
    observation, _ = env.reset(seed=0)
    parts = observation if isinstance(observation, dict) else {"": observation}
    spoiled = {key: np.full_like(part, bad) if part.dtype.kind == "f" else part for key, part in parts.items()}
    _, state = model.predict(observation, None, np.ones(1, bool), deterministic=True)
    expected, _ = model.predict(observation, state, np.zeros(1, bool), deterministic=True)
    for before in (None, state):
        with pytest.raises(ValueError, match=r"has the value -?(nan|inf)\. Observations must be finite"):
            model.predict(spoiled if isinstance(observation, dict) else spoiled[""], before, np.zeros(1, bool))
    again, _ = model.predict(observation, state, np.zeros(1, bool), deterministic=True)
    np.testing.assert_array_equal(again, expected)


def test_a_stream_goes_on_after_a_bad_observation() -> None:
    """One sensor fails for one environment: no plan of any environment is lost."""
    data = collect(pendulum)
    model = StreamingFlow("FlowPolicy", dataset=data, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0).learn(2)
    good, starts = data["observations"][:2], np.ones(2, bool)
    with pytest.raises(ValueError, match="nan"):
        model.predict(np.stack([good[0], np.full(3, NAN)]), None, starts)
    state = model.predict(good, None, starts)[1]
    for _ in range(20):
        with pytest.raises(ValueError, match="nan"):
            model.predict(np.stack([good[0], np.full(3, NAN)]), state, ~starts)
        actions, state = model.predict(good, state, ~starts)
        assert np.isfinite(actions).all()


def test_a_policy_that_is_lost() -> None:
    model = FQL("FlowPolicy", pendulum(), **SMALL)
    next(model.policy.actor.parameters()).data.fill_(NAN)
    with pytest.raises(ValueError, match="Actions of the policy are not finite: its parameters are invalid"):
        model.predict(np.zeros(3, np.float32))


# Checkpoints.


class Poison(BaseCallback):
    """Spoils something at a timestep."""

    def __init__(self, timestep: int, spoil: Callable[[Any], Any]) -> None:
        super().__init__()
        self.timestep, self.spoil = timestep, spoil

    def _on_step(self) -> bool:
        if self.num_timesteps == self.timestep:
            self.spoil(self.model)
        return True


def spoil_optimizer(model: FQL) -> None:
    """Parameters and losses stay finite: their next steps are divided by infinity."""
    next(iter(model.policy.optimizer.state.values()))["exp_avg_sq"].fill_(np.inf)


def spoil_statistics(model: FQL) -> None:
    model.get_vec_normalize_env().ret_rms.var = np.asarray(NAN)


def spoil_observation(model: FQL) -> None:
    model.replay_buffer.stores[""].blocks[0][1, 0] = NAN


SPOILED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "parameter": (lambda model: next(model.policy.critic.parameters()).data[0].fill_(NAN), "parameters are not finite"),
    "optimizer": (spoil_optimizer, "numbers in it are not finite: optimizer"),
    "statistics": (spoil_statistics, "numbers in it are not finite: statistics of VecNormalize"),
    "observation": (spoil_observation, "numbers in it are not finite: replay buffer"),
    "reward": (lambda model: model.replay_buffer.transitions.rewards[0].fill_(np.inf), "not finite: replay buffer"),
    "action": (lambda model: model.replay_buffer.action_column[0].fill_(NAN), "not finite: replay buffer"),
}


@pytest.mark.parametrize("part", SPOILED)
def test_a_checkpoint_is_written_only_of_what_is_finite(tmp_path: Path, part: str) -> None:
    """The last good one stays, also where only one is kept, and a run goes on from it."""
    spoil, message = SPOILED[part]

    def env() -> VecNormalize:
        return VecNormalize(pendulums(1), norm_obs=False, norm_reward=False)

    arguments = {**SMALL, "train_freq": 4, "learning_starts": 3}
    model = FQL("FlowPolicy", env(), **arguments)
    # A checkpoint at 8, and what is spoiled at 12 would be in the next one: updates come after it.
    callbacks = [TrainingCheckpoint(tmp_path, 4), Poison(12, spoil)]
    model.learn(8, callback=callbacks)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_8"]
    model.train = lambda *_: None  # or it would raise first
    with pytest.raises(ValueError, match=message):
        model.learn(12, callback=callbacks, reset_num_timesteps=False)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_8"]
    resumed = FQL.resume(tmp_path, env(), device="cpu").learn(16)
    assert resumed.n_env_steps == 16
    assert all(bool(value.isfinite().all()) for value in parameters(resumed).values())


def test_a_normalizer_that_saw_a_bad_observation(tmp_path: Path) -> None:
    """``VecNormalize`` has it in its statistics before anything can be checked; the message says so."""
    env = VecNormalize(DummyVecEnv([lambda: Faulty(pendulum(), 7)]))
    model = FQL("FlowPolicy", env, **SMALL)
    message = r"After \d environment steps.*nan.*statistics of `VecNormalize` are not finite any more"
    with pytest.raises(ValueError, match=message):
        model.learn(20, callback=TrainingCheckpoint(tmp_path, 3))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_3"]
    assert FQL.resume(tmp_path, VecNormalize(pendulums(1)), device="cpu").learn(20).n_env_steps == 20


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("fault", "where"), [(0, "The first "), (3, "After 6 "), (6, "After 12 "), (7, "After 12 ")])
def test_infinity_is_found_before_it_is_normalized(fault: int, where: str, training: bool) -> None:
    """``VecNormalize`` clips it; the last observation of an episode, number 6, and frozen statistics show nothing of it."""
    env = VecNormalize(DummyVecEnv([pendulum, lambda: Faulty(pendulum(6), fault, value=-np.inf)]), training=training)
    model = FQL("FlowPolicy", env, **SMALL)
    with pytest.raises(ValueError, match=rf"{where}.*observation.* of environment 1.* has the value -inf"):
        model.learn(40)
    assert model.replay_buffer.not_finite() is None


@pytest.mark.slow
def test_an_infinite_last_observation_of_another_process_is_found() -> None:
    """Their infos are not kept by ``SubprocVecEnv``."""
    env = VecNormalize(SubprocVecEnv([pendulum, lambda: Faulty(pendulum(6), 6, value=np.inf)], start_method="fork"))
    model = FQL("FlowPolicy", env, **SMALL)
    with pytest.raises(ValueError, match=r"After 12 .*of environment 1 at the end of the episode.* has the value inf"):
        model.learn(40)
    assert model.replay_buffer.not_finite() is None
    env.close()


def test_a_step_is_checked_before_callbacks_see_it() -> None:
    """An evaluation at this step would raise an error that does not name it: it takes over the statistics."""
    env = VecNormalize(DummyVecEnv([lambda: Faulty(pendulum(), 5)]))
    evaluate = EvalCallback(VecNormalize(pendulums(1), training=False), eval_freq=5, n_eval_episodes=1, verbose=0, warn=False)
    with pytest.raises(ValueError, match=r"After 5 environment steps, the observation of environment 0 has the value nan"):
        FQL("FlowPolicy", env, **SMALL).learn(8, callback=evaluate)
    assert evaluate.n_calls == 4


@pytest.mark.parametrize("training", [True, False])
def test_an_infinite_reward_is_found_before_it_is_normalized(training: bool) -> None:
    class Rewarding(gym.Wrapper):
        def step(self, action: Any) -> Any:
            observation, _, *rest = self.env.step(action)
            return observation, np.inf, *rest

    model = FQL("FlowPolicy", VecNormalize(DummyVecEnv([lambda: Rewarding(pendulum())]), training=training), **SMALL)
    with pytest.raises(ValueError, match="After 1 environment steps, the reward of environment 0 is inf"):
        model.learn(4)


# Losses.


@pytest.mark.parametrize("field", ["rewards", "actions", "observations"])
def test_a_loss_names_the_input_that_was_not_finite(field: str) -> None:
    model = FQL("FlowPolicy", pendulum(), **SMALL).learn(6)
    buffer = model.replay_buffer
    {"rewards": buffer.transitions.rewards, "actions": buffer.action_column}.get(
        field, th.from_numpy(buffer.stores[""].blocks[0])
    ).fill_(NAN)
    message = rf"Update {model._n_updates + 1} is not finite.*correct the data: .*`{field}` of the batch has the value nan"
    with pytest.raises(ValueError, match=message):
        model.train(1, 16)
    model._metrics.add(("loss",), th.tensor([NAN]))  # of an update whose batch is not known any more
    with pytest.raises(ValueError, match=r"correct the data: the replay buffer is not finite"):
        model.check_finite()


def test_a_loss_that_is_lost_for_another_reason() -> None:
    model = FQL("FlowPolicy", pendulum(), dataset=collect(pendulum), learning_rate=1e30, **SMALL)
    with pytest.raises(
        ValueError, match=r"not finite.*lower learning rate or other data\. All values of the batch were finite"
    ):
        model.learn(20)


@pytest.mark.parametrize("rate", [NAN, np.inf, -1.0])
def test_a_learning_rate_is_checked_before_the_update(rate: float) -> None:
    model = FQL("FlowPolicy", pendulum(), learning_rate=lambda left: 1e-3 if left > 0.5 else rate, **SMALL)
    with pytest.raises(ValueError, match=f"`learning_rate` has become {rate}; its function must return finite numbers"):
        model.learn(20)
    assert all(th.isfinite(value).all() for value in parameters(model).values())


def test_spaces_without_floats_are_not_searched() -> None:
    """Images are bytes, which are always finite; a dictionary may have both."""
    space = spaces.Dict({"image": spaces.Box(0, 255, (3, 8, 8), np.uint8), "vector": spaces.Box(-1, 1, (2,))})
    model = FQL("FlowPolicy", Pictures(space), **SMALL).learn(5)
    assert model.replay_buffer.not_finite() is None
    model.replay_buffer.stores["vector"].blocks[0][1] = np.inf
    assert model.replay_buffer.not_finite() == np.inf


class Pictures(gym.Env):
    """Random observations."""

    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.observation_space.sample(), 0.0, False, False, {}
