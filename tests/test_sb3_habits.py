"""Environments, callbacks and noise as users of Stable-Baselines3 have them."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_flow import FQL
from sb3_flow.common import guards
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.common.data.observation_store import SLACK
from sb3_flow.datasets import DatasetError

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "device": "cpu", "seed": 0}
ONLINE: dict[str, Any] = {**SMALL, "buffer_size": 200, "learning_starts": 5}
VECTOR, JOINT = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (1,), np.float32)


class Simulator(VecEnv):
    """As those of game engines: steps and resets work, and whatever else is asked raises an error."""

    def __init__(self, n_envs: int = 2, row_shape: tuple[int, ...] = (3,)) -> None:
        super().__init__(n_envs, VECTOR, JOINT)
        self.row_shape, self.time = row_shape, 0

    def reset(self) -> np.ndarray:
        return np.zeros((self.num_envs, 3), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        assert actions.shape == (self.num_envs, 1)

    def step_wait(self) -> Any:
        self.time += 1
        ends = np.full(self.num_envs, self.time % 5 == 0)
        observations = np.full((self.num_envs, *self.row_shape), 0.1, np.float32)
        infos = [{"terminal_observation": row, "TimeLimit.truncated": True} if ends[0] else {} for row in observations]
        return observations, np.ones(self.num_envs, np.float32), ends, infos

    def close(self) -> None:
        """Nothing to close."""

    def _unsupported(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the simulator does not know this")

    def get_attr(self, name: str, indices: Any = None) -> list[Any]:
        """Stable-Baselines3 asks for the render mode when it makes a vectorized environment."""
        return [None] * self.num_envs if name == "render_mode" else self._unsupported()

    has_attr = get_images = set_attr = env_method = env_is_wrapped = _unsupported


def data() -> dict[str, np.ndarray]:
    return collect(lambda: AnySpaces(VECTOR, JOINT))


def test_vectorized_environments_of_other_packages(tmp_path: Path) -> None:
    """Nothing is asked of them but what training needs: offline with arrays, online, and resumed."""
    FQL("FlowPolicy", Simulator(), dataset=data(), **SMALL).learn(4)
    model = FQL("FlowPolicy", Simulator(), dataset=data(), offline_steps=4, **ONLINE).learn(24)
    assert model.n_env_steps == 20 and model._episode_num == 4
    FQL("FlowPolicy", VecNormalize(Simulator()), **ONLINE).learn(12, callback=TrainingCheckpoint(tmp_path, 6))
    assert FQL.resume(tmp_path, VecNormalize(Simulator())).learn(20).n_env_steps == 20


def test_observations_that_do_not_fit_are_not_stored() -> None:
    model = FQL("FlowPolicy", Simulator(row_shape=(4,)), **ONLINE)
    with pytest.raises(ValueError, match=r"the shape \(4,\), but the observation space has \(3,\)"):
        model.learn(10)
    assert len(model.replay_buffer) == 0


def test_wrappers_around_the_normalization() -> None:
    """Those that keep the shape of observations are fine; others, and a second normalization, are not."""
    FQL("FlowPolicy", VecMonitor(VecNormalize(DummyVecEnv([pendulum]))), **ONLINE).learn(8)
    FQL("FlowPolicy", VecNormalize(VecFrameStack(DummyVecEnv([pendulum]), 2)), **ONLINE).learn(8)
    with pytest.raises(ValueError, match=r"VecFrameStack changes the shape .*VecNormalize\(VecFrameStack\(venv"):
        FQL("FlowPolicy", VecFrameStack(VecNormalize(DummyVecEnv([pendulum])), 2), **ONLINE)
    with pytest.raises(ValueError, match="`VecNormalize` twice"):
        FQL("FlowPolicy", VecNormalize(VecMonitor(VecNormalize(DummyVecEnv([pendulum])))), **ONLINE)
    model = FQL("FlowPolicy", pendulum(), **ONLINE)
    with pytest.raises(ValueError, match="`VecNormalize` twice"):
        model.set_env(VecNormalize(VecNormalize(DummyVecEnv([pendulum]))))


def test_vectorized_environments_of_gymnasium() -> None:
    with pytest.raises(TypeError, match=r"Gymnasium's SyncVectorEnv; .*make_vec_env"):
        FQL("FlowPolicy", gym.make_vec("Pendulum-v1", 2, vectorization_mode="sync"), **ONLINE)


def test_a_model_that_was_loaded_without_an_environment(tmp_path: Path) -> None:
    FQL("FlowPolicy", pendulum(), **ONLINE).save(tmp_path / "model")
    with pytest.raises(RuntimeError, match=r"or loaded without one\. .*load\(path, env=env\)"):
        FQL.load(tmp_path / "model").learn(10)


def images() -> AnySpaces:
    return AnySpaces(spaces.Box(0, 255, (3, 36, 36), np.uint8), JOINT)


def test_images_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    """The warning has both sizes: 3 * 36 * 36 bytes a transition, and what the store has in reserve."""
    monkeypatch.setattr(guards, "available_memory", lambda: 2**30)
    with pytest.warns(UserWarning, match=rf"need up to {3888e6 * (1 + SLACK) / 2**30:.1f} GiB of memory, and 1\.0 GiB are "):
        FQL("FlowPolicy", images(), buffer_size=1_000_000, **SMALL)
    recwarn.clear()
    FQL("FlowPolicy", images(), buffer_size=100_000, **SMALL)
    FQL("FlowPolicy", images(), buffer_size=1_000_000, dataset=collect(images, 20), **SMALL)  # never online
    monkeypatch.setattr(guards, "available_memory", lambda: None)
    FQL("FlowPolicy", images(), buffer_size=1_000_000, **SMALL)
    assert not [warning for warning in recwarn if "GiB" in str(warning.message)]


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2)])
def test_the_shape_of_the_noise(shape: tuple[int, ...]) -> None:
    noise = NormalActionNoise(np.zeros(shape), np.ones(shape))
    if shape == (1,):
        FQL("FlowPolicy", pendulum(), action_noise=noise, **ONLINE).learn(8)
        vectorized = VectorizedActionNoise(noise, 2)
        FQL("FlowPolicy", DummyVecEnv([pendulum] * 2), action_noise=vectorized, **ONLINE).learn(8)
        with pytest.raises(ValueError, match="`action_noise` has the shape"):
            FQL("FlowPolicy", DummyVecEnv([pendulum] * 3), action_noise=vectorized, **ONLINE)
    else:
        with pytest.raises(ValueError, match=r"`action_noise` has the shape \(.*\), but actions have \(1,\)"):
            FQL("FlowPolicy", pendulum(), action_noise=noise, **ONLINE)


class Locals(BaseCallback):
    """Remembers the local variables of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.seen.append(dict(self.locals))
        return True


@pytest.mark.parametrize("n_envs", [1, 2])
def test_local_variables_of_callbacks(n_envs: int) -> None:
    """Offline they have the names, shapes and types of the online phase. There was no step: rewards and actions are 0."""
    recorder = Locals()
    env = DummyVecEnv([pendulum] * n_envs)
    FQL("FlowPolicy", env, dataset=collect(pendulum), offline_steps=4, **ONLINE).learn(24, callback=recorder)
    offline, online = recorder.seen[0], recorder.seen[-1]
    names = {"rewards", "new_obs", "actions", "buffer_actions", "dones", "infos", "env", "self", "callback"}
    names |= {"num_collected_steps", "num_collected_episodes"}
    assert names <= offline.keys() and names <= online.keys()
    for name in ("rewards", "new_obs", "actions", "buffer_actions", "dones"):
        assert np.shape(offline[name]) == np.shape(online[name]), name
        assert np.asarray(offline[name]).dtype == np.asarray(online[name]).dtype, name
    assert not offline["rewards"].any() and not offline["actions"].any() and not offline["dones"].any()
    assert len(offline["infos"]) == n_envs and offline["env"] is offline["self"].env


def test_numbers_of_learn_are_converted() -> None:
    """A text that is a number is a number, as in configurations."""
    model = FQL("FlowPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, learning_starts=10, device="cpu")
    assert model.learn("3e0", log_interval="2").num_timesteps == 3  # type: ignore[arg-type]


class OwnBox(gym.spaces.Box):
    """A subclass of a space."""


class OwnSpace(gym.ObservationWrapper[Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = OwnBox(-8, 8, (3,), np.float32)

    def observation(self, observation: Any) -> Any:
        return observation


def test_spaces_that_cannot_be_saved_are_found_at_the_start(tmp_path: Path) -> None:
    """A checkpoint has the spaces of the replay buffer: not the first checkpoint fails, after hours, but `learn`."""
    model = FQL("FlowPolicy", OwnSpace(gym.make("Pendulum-v1")), policy_kwargs={"net_arch": [8]}, device="cpu")
    with pytest.raises(ValueError, match="OwnBox"):
        model.learn(5, callback=TrainingCheckpoint(tmp_path, 1000))
    assert model.num_timesteps == 0


def normalized() -> VecNormalize:
    return VecNormalize(DummyVecEnv([pendulum]))


def test_other_normalization_than_in_training_is_warned_of(tmp_path: Path) -> None:
    """The policy would see numbers of another scale. Stable-Baselines3 says nothing."""
    for name, env in (("normalized", normalized()), ("raw", pendulum())):
        model = FQL("FlowPolicy", env, **ONLINE).learn(20)
        model.save(tmp_path / name)
        if isinstance(env, VecNormalize):
            env.save(str(tmp_path / "statistics.pkl"))
    with pytest.warns(UserWarning, match="which this environment does not have"):
        FQL.load(tmp_path / "normalized", env=pendulum())
    with pytest.warns(UserWarning, match="was trained without it"):
        FQL.load(tmp_path / "raw").set_env(normalized())
    fresh = FQL.load(tmp_path / "normalized", env=normalized())
    with pytest.warns(UserWarning, match="has no statistics, so that the policy sees other numbers"):
        fresh.learn(10, reset_num_timesteps=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = VecNormalize.load(str(tmp_path / "statistics.pkl"), DummyVecEnv([pendulum]))
        FQL.load(tmp_path / "normalized", env=kept).learn(10, reset_num_timesteps=False)
        rewards = VecNormalize(DummyVecEnv([pendulum]), norm_obs=False)
        FQL.load(tmp_path / "raw", env=rewards).learn(10, reset_num_timesteps=False)


def test_a_dataset_that_no_longer_fits_is_named_in_one_line(tmp_path: Path) -> None:
    data = collect(pendulum, 50)
    FQL("FlowPolicy", pendulum(), dataset=data, **SMALL).learn(2).save(tmp_path / "model")
    wider = {**data, "actions": np.concatenate([data["actions"], data["actions"]], axis=1)}
    with pytest.raises(DatasetError, match=r"The model's dataset .* cannot be read: .*`actions` has shape") as raised:
        FQL.load(tmp_path / "model", dataset=wider).learn(2)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
