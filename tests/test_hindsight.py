"""Hindsight relabeling: goals are those that were reached later, and rewards are those of the environment for them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow import FQL
from sb3_flow.common.data.hindsight import Hindsight
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.datasets import DatasetError, load_dataset

GAMMA = 0.9
PART = spaces.Box(-np.inf, np.inf, (1,), np.float32)
SPACE = spaces.Dict({"observation": PART, "achieved_goal": PART, "desired_goal": PART})
ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 16, "flow_steps": 2, "device": "cpu"}


def reward(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Minus the distance: it tells which goal was compared with what."""
    return -np.abs(achieved - desired)[:, 0]


def goal_data(lengths: list[int]) -> dict[str, Any]:
    """State ``i`` of episode ``e`` is ``100 e + i``, which is also what was achieved; all goals are -1."""
    states = np.concatenate([100 * number + np.arange(length) for number, length in enumerate(lengths)]).astype(np.float32)[
        :, None
    ]
    goals = np.full_like(states, -1)
    last = np.concatenate([np.arange(length) == length - 1 for length in lengths])
    return {
        "observations": {"observation": states, "achieved_goal": states, "desired_goal": goals},
        "next_observations": {"observation": states + 1, "achieved_goal": states + 1, "desired_goal": goals},
        "actions": np.zeros_like(states),
        "rewards": reward(states + 1, goals),
        "terminations": np.zeros(len(states), dtype=bool),
        "truncations": last,
    }


@pytest.mark.parametrize("returned", [np.zeros(1), np.float32(0), np.zeros((3, 1, 2))])
def test_rewards_for_several_goals_are_required(returned: Any) -> None:
    """Otherwise, one number would be the reward of all goals, or rewards would be those of other rows."""
    buffer = OfflineBuffer(load_dataset(goal_data([5, 5])), SPACE, ACTIONS)
    hindsight = Hindsight(4, lambda achieved, desired: returned, th.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"`compute_reward` of the environment returned an array of shape .* goals; it must"):
        buffer.draw(th.arange(len(buffer)), hindsight=hindsight)


def check(buffer: Any, n_steps: int, chunk_length: int, last_state: Any) -> set[float]:
    """
    Draw all transitions with other goals but a fifth.

    :param last_state: From a state to the last one of its trajectory
    :return: How many steps later the goals were reached
    """
    indices = th.arange(len(buffer)).repeat(40)
    indices = indices[th.randperm(len(indices), generator=th.Generator().manual_seed(1))]
    hindsight = Hindsight(4, reward, th.Generator().manual_seed(0))
    batch = buffer.draw(indices, n_steps, GAMMA, chunk_length, hindsight=hindsight)
    count = len(indices) * 4 // 5
    states, following, goals = (
        part[:, 0].double()
        for part in (
            batch.observations["observation"],
            batch.next_observations["observation"],
            batch.observations["desired_goal"],
        )
    )
    assert th.equal(batch.observations["desired_goal"], batch.next_observations["desired_goal"])
    assert (goals[count:] == -1).all() and (goals[:count] >= 0).all()
    distances = set()
    for row in range(len(indices)):
        steps = round(float(following[row] - states[row]))
        goal = float(goals[row])
        expected = sum(GAMMA**i * -abs(float(states[row]) + i + 1 - goal) for i in range(steps))
        assert float(batch.rewards[row]) == pytest.approx(expected, rel=1e-5)
        if row < count:
            assert states[row] < goal <= last_state(float(states[row]))
            distances.add(goal - float(states[row]))
    return distances


@pytest.mark.parametrize(("n_steps", "chunk_length"), [(1, 1), (3, 1), (1, 4)])
@pytest.mark.parametrize("explicit", [True, False])
def test_offline(n_steps: int, chunk_length: int, explicit: bool) -> None:
    lengths = [4, 7, 1, 5]
    data = goal_data(lengths)
    if not explicit:  # the same with last observations in rows of their own
        data = [
            {
                "observations": {
                    key: np.concatenate([part[rows], data["next_observations"][key][rows[-1:]]])
                    for key, part in data["observations"].items()
                },
                **{key: data[key][rows] for key in ("actions", "rewards", "terminations")},
            }
            for rows in np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
        ]
    buffer = OfflineBuffer(load_dataset(data), SPACE, ACTIONS)
    buffer.check_hindsight()
    distances = check(buffer, n_steps, chunk_length, lambda state: state // 100 * 100 + lengths[int(state // 100)])
    assert distances == set(range(1, 8))


def test_every_later_goal_is_as_likely() -> None:
    """The first state of an episode of four steps: goals 1 to 4 with probability 1/4 each, as in SB3's HerReplayBuffer."""
    buffer = OfflineBuffer(load_dataset(goal_data([4])), SPACE, ACTIONS)
    hindsight = Hindsight(1, reward, th.Generator().manual_seed(0))
    batch = buffer.draw(th.zeros(8000, dtype=th.int64), hindsight=hindsight)
    goals = batch.observations["desired_goal"][:4000, 0]
    shares = th.bincount(goals.long(), minlength=5)[1:] / 4000
    assert ((shares - 0.25).abs() < 4 * (0.25 * 0.75 / 4000) ** 0.5).all()


@pytest.mark.parametrize("n_adds", [5, 12, 17, 23])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_online(n_adds: int, n_envs: int) -> None:
    """A ring of 12 rows, half full, full, and overwritten. Environment ``e`` has episodes of ``4 + e`` steps."""
    buffer = OnlineBuffer(12 * n_envs, SPACE, ACTIONS, "cpu", n_envs)
    episode, step = np.zeros(n_envs), np.zeros(n_envs)
    trajectories: list[list[float]] = []
    for _ in range(n_adds):
        state = 1000 * np.arange(n_envs) + 100 * episode + step
        now, then = (
            {"observation": s, "achieved_goal": s, "desired_goal": np.full_like(s, -1)}
            for s in (state[:, None].astype(np.float32), state[:, None].astype(np.float32) + 1)
        )
        done = step == 3 + np.arange(n_envs)
        infos = [{"TimeLimit.truncated": bool(flag)} for flag in done]
        rewards = reward(then["achieved_goal"], now["desired_goal"])
        buffer.add(now, then, np.zeros((n_envs, 1), np.float32), rewards, done, infos)
        trajectories.append(state.tolist())
        episode, step = np.where(done, episode + 1, episode), np.where(done, 0, step + 1)
    stored = np.array(trajectories[-12:]).reshape(-1)

    def last_state(state: float) -> float:
        return float(stored[(stored // 100 == state // 100)].max() + 1)

    for n_steps, chunk_length in ((1, 1), (3, 1), (1, 3)):
        assert len(check(buffer, n_steps, chunk_length, last_state)) >= 4


class Goals(BitFlippingEnv):
    """Its rewards take as many goals as one likes."""

    def __init__(self) -> None:
        super().__init__(n_bits=4, continuous=True)


def small(**arguments: Any) -> FQL:
    return FQL("FlowPolicy", Goals(), learning_starts=10, seed=0, **SMALL, **arguments)


def test_online_training() -> None:
    """Without hindsight nearly all rewards are -1; with it, one in four goals is that of the next state."""
    model = small(hindsight=4).learn(60)
    rewards = model.draw_batch(500).rewards
    assert 0.1 < (rewards == 0).float().mean() < 0.9
    again = small(hindsight=4).learn(60)
    for ours, theirs in zip(model.policy.parameters(), again.policy.parameters(), strict=True):
        assert th.equal(ours, theirs)  # the goals follow from the seed


def test_data_of_hindsight_from_stable_baselines3(tmp_path: Any) -> None:
    """What SAC with HER collected is data with its own goals; `hindsight` relabels it, with VecNormalize too."""
    other = SAC(
        "MultiInputPolicy",
        Goals(),
        replay_buffer_class=HerReplayBuffer,
        learning_starts=30,
        batch_size=16,
        buffer_size=200,
        policy_kwargs={"net_arch": [8]},
        device="cpu",
    ).learn(80)
    assert isinstance(other.replay_buffer, HerReplayBuffer)
    plain = small(dataset=other.replay_buffer)
    plain.set_dataset(other.replay_buffer)
    assert len(plain.offline_buffer) == 80
    rewards = plain.draw_batch(400).rewards
    model = FQL(
        "FlowPolicy",
        VecNormalize(DummyVecEnv([Goals]), norm_obs=False, norm_reward=False),
        dataset=other.replay_buffer,
        hindsight=4,
        **SMALL,
    ).learn(5)
    relabeled = model.draw_batch(400).rewards
    assert (relabeled == 0).float().mean() > (rewards == 0).float().mean() + 0.1
    model.save(tmp_path / "model")
    assert FQL.load(tmp_path / "model", env=Goals(), device="cpu").hindsight == 4


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="`hindsight` needs observations with the parts 'observation', 'achieved_goal'"):
        FQL("FlowPolicy", "Pendulum-v1", hindsight=4, **SMALL)
    with pytest.raises(ValueError, match="`hindsight` is -1"):
        small(hindsight=-1)
    with pytest.raises(TypeError, match="hindsight=4"):
        FQL("FlowPolicy", Goals(), replay_buffer_class=HerReplayBuffer, **SMALL)
    data = goal_data([4, 3])
    with pytest.warns(UserWarning, match="There is no environment"):
        alone = FQL("FlowPolicy", dataset=data, hindsight=4, **SMALL)
    with pytest.raises(ValueError, match="needs the function `compute_reward"):
        alone.learn(5)
    del data["next_observations"]
    data["terminations"], data["truncations"] = data["truncations"], data["terminations"]
    buffer = OfflineBuffer(load_dataset(data), SPACE, ACTIONS)
    with pytest.raises(DatasetError, match="missing for 2 steps that ended the task"):
        buffer.check_hindsight()


def test_the_environment_may_be_wrapped() -> None:
    env = gym.wrappers.TimeLimit(Goals(), 5)
    model = FQL("FlowPolicy", env, hindsight=4, learning_starts=5, **SMALL).learn(20)
    assert (model.draw_batch(100).rewards == 0).any()
