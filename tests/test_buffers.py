"""
Drawing transitions, against trajectories written out as lists and followed step by step.

Every state has a number of its own (as its observation) and every action another, so that a batch says which rows it
was made of.
"""

import pathlib
import pickle
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_flow import FQL
from sb3_flow.common.data.batches import concatenate
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.data.transitions import Transitions
from sb3_flow.common.type_aliases import Batch

GAMMA = 0.9
ANY = spaces.Box(-np.inf, np.inf, (1,))
UNIT = spaces.Box(-1.0, 1.0, (2,))
SEEDS = range(6)


class SpacesOnly(gym.Env):
    """An environment that only provides spaces."""

    def __init__(self, observation_space: spaces.Space = ANY, action_space: spaces.Box = UNIT) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


# The reference: trajectories as lists of steps.


@dataclass
class Step:
    state: float
    action: tuple[float, float]
    reward: float
    termination: bool
    next_state: float


Trajectory = list[Step]


@dataclass
class Expected:
    state: float
    actions: list[float]
    reward: float
    mask: float
    discount: float
    next_state: float
    valid: float


def random_trajectories(seed: int, goes_on: bool) -> list[Trajectory]:
    """Trajectories of 1 to 7 steps. A task may end in their midst if ``goes_on`` (as in OGBench), else at their end only."""
    rng = np.random.default_rng(seed)
    trajectories: list[Trajectory] = []
    state, action = 0.0, 0
    for _ in range(12):
        trajectory: Trajectory = []
        length = int(rng.integers(1, 8))
        for i in range(length):
            may_end = goes_on or i == length - 1
            pair = (action / 1000, -action / 1000)
            trajectory.append(Step(state, pair, float(rng.normal()), bool(may_end and rng.random() < 0.3), state + 1))
            state, action = state + 1, action + 1
        state += 1  # the last state of a trajectory is not the first of the next one
        trajectories.append(trajectory)
    return trajectories


def follow(trajectory: Trajectory, start: int, n_steps: int) -> Expected:
    """The n-step return: stops after a termination and at the end of the trajectory. It is valid over fewer steps too."""
    reward, mask, discount = 0.0, 1.0, 1.0
    taken = 0
    for step in trajectory[start : start + n_steps]:
        reward += GAMMA**taken * step.reward
        taken += 1
        discount = GAMMA**taken
        next_state = step.next_state
        if step.termination:
            mask = 0.0
            break
    first = trajectory[start]
    return Expected(first.state, list(first.action), reward, mask, discount, next_state, valid=1.0)


def follow_chunk(trajectory: Trajectory, start: int, length: int) -> Expected:
    """QAM, section 4.1: goes on after a termination, up to the end of the trajectory."""
    steps = trajectory[start : start + length]
    reward = sum(GAMMA**i * step.reward for i, step in enumerate(steps))
    mask = 0.0 if any(step.termination for step in steps) else 1.0
    actions = [component for step in steps for component in step.action]
    return Expected(
        steps[0].state, actions, reward, mask, GAMMA ** len(steps), steps[-1].next_state, float(len(steps) == length)
    )


def check(batch: Batch, expected: list[Expected], chunk_length: int = 1) -> None:
    """Compare a batch with the reference. Past the end of a trajectory the actions of a chunk mean nothing."""

    def column(field: str) -> th.Tensor:
        return th.tensor([getattr(item, field) for item in expected])

    for field, name in (("rewards", "reward"), ("masks", "mask"), ("discounts", "discount"), ("valids", "valid")):
        th.testing.assert_close(getattr(batch, field), column(name), msg=lambda message, field=field: f"{field}: {message}")
        assert getattr(batch, field).dtype == th.float32
    th.testing.assert_close(batch.observations[:, 0], column("state"))
    th.testing.assert_close(batch.next_observations[:, 0], column("next_state"))
    assert batch.actions.shape == (len(expected), 2 * chunk_length)
    for row, item in zip(batch.actions, expected, strict=True):
        th.testing.assert_close(row[: len(item.actions)], th.tensor(item.actions))


def explicit_layout(trajectories: list[Trajectory]) -> OfflineDataset:
    """One row for each transition, with what followed it."""
    steps = [step for trajectory in trajectories for step in trajectory]
    ends = [i == len(trajectory) - 1 for trajectory in trajectories for i in range(len(trajectory))]
    return OfflineDataset(
        observations=np.array([[step.state] for step in steps], dtype=np.float32),
        actions=np.array([step.action for step in steps]),
        rewards=np.array([step.reward for step in steps]),
        terminations=np.array([step.termination for step in steps]),
        ends=np.array(ends),
        valids=np.ones(len(steps), dtype=bool),
        next_observations=np.array([[step.next_state] for step in steps], dtype=np.float32),
    )


def compact_layout(trajectories: list[Trajectory]) -> OfflineDataset:
    """As OGBench stores it: each state once, the last one of a trajectory in a row that is no transition."""
    observations, actions, rewards, terminations, ends, valids = [], [], [], [], [], []
    for trajectory in trajectories:
        for i, step in enumerate(trajectory):
            observations.append([step.state])
            actions.append(step.action)
            rewards.append(step.reward)
            terminations.append(step.termination)
            ends.append(i == len(trajectory) - 1)
            valids.append(True)
        observations.append([trajectory[-1].next_state])
        actions.append((0.77, 0.77))
        rewards.append(1e6)
        terminations.append(False)
        ends.append(True)
        valids.append(False)
    return OfflineDataset(
        np.array(observations, dtype=np.float32),
        np.array(actions),
        np.array(rewards),
        np.array(terminations),
        np.array(ends),
        np.array(valids),
    )


LAYOUTS = [explicit_layout, compact_layout]


# Offline.


@pytest.mark.parametrize("n_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_returns_of_several_steps(layout: Any, n_steps: int, seed: int) -> None:
    """Returns never cross the end of a trajectory and stop at a termination; the discount is gamma^(steps summed)."""
    trajectories = random_trajectories(seed, goes_on=True)
    buffer = OfflineBuffer(layout(trajectories), ANY, UNIT)
    expected = [follow(trajectory, i, n_steps) for trajectory in trajectories for i in range(len(trajectory))]
    assert len(buffer) == len(expected)
    assert {item.mask for item in expected} == {0.0, 1.0}
    check(buffer.draw(th.arange(len(buffer)), n_steps, GAMMA), expected)
    order = th.randperm(len(buffer), generator=th.Generator().manual_seed(seed))
    check(buffer.draw(order, n_steps, GAMMA), [expected[i] for i in order])


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_chunks(layout: Any, length: int, seed: int) -> None:
    """QAM 4.1: actions flat with time first; valid only within a trajectory; rewards after a success accumulate."""
    trajectories = random_trajectories(seed, goes_on=True)
    buffer = OfflineBuffer(layout(trajectories), ANY, UNIT)
    expected = [follow_chunk(trajectory, i, length) for trajectory in trajectories for i in range(len(trajectory))]
    assert {item.valid for item in expected} == {0.0, 1.0}
    check(buffer.draw(th.arange(len(buffer)), gamma=GAMMA, chunk_length=length), expected, length)


def test_published_chunk_arithmetic() -> None:
    """QAM's U10, number by number."""
    data = dict(
        observations=np.array([[0.0], [1.0], [2.0]]),
        next_observations=np.array([[10.0], [11.0], [12.0]]),
        actions=np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        rewards=np.array([-1.0, -1.0, 0.0]),
        masks=np.array([1.0, 1.0, 0.0]),
        terminals=np.array([0.0, 0.0, 1.0]),
    )
    batch = OfflineBuffer(OfflineDataset.from_dict(data), ANY, UNIT).draw(th.tensor([0, 1]), gamma=0.9, chunk_length=3)
    th.testing.assert_close(batch.rewards, th.tensor([-1.9, -1.0]))
    assert batch.masks.tolist() == [0.0, 0.0]
    assert batch.valids.tolist() == [1.0, 0.0]
    assert batch.next_observations.tolist() == [[12.0], [12.0]]
    th.testing.assert_close(batch.actions[0], th.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    th.testing.assert_close(batch.actions[1, :4], th.tensor([0.3, 0.4, 0.5, 0.6]))
    target = batch.rewards + batch.discounts * batch.masks * 123.0
    assert target[0].item() == pytest.approx(-1.9)


def test_stop_at_termination_is_a_choice() -> None:
    """Where the task ends but the recording goes on, a return stops and a chunk continues; both cut the bootstrap."""
    transitions = Transitions(th.tensor([1.0, 2.0, 4.0]), th.tensor([False, True, False]), th.tensor([False, False, True]))
    stopped = transitions.steps(th.tensor([0]), 3, 0.5)
    going_on = transitions.steps(th.tensor([0]), 3, 0.5, stop_at_termination=False)
    assert (stopped.rewards.item(), stopped.masks.item(), stopped.discounts.item()) == (2.0, 0.0, 0.25)
    assert (going_on.rewards.item(), going_on.masks.item(), going_on.discounts.item()) == (3.0, 0.0, 0.125)
    assert stopped.rows[:, 0].tolist() == [0, 1, 1]
    assert going_on.rows[:, 0].tolist() == [0, 1, 2]
    assert going_on.valids.item() == 1.0


def test_actions_are_scaled() -> None:
    """Actions arrive in [-1, 1], linearly from the bounds of the action space; array-shaped ones are flattened."""
    space = spaces.Box(np.array([[0.0, -2.0]], dtype=np.float32), np.array([[512.0, 6.0]], dtype=np.float32))
    actions = np.array([[[0.0, -2.0]], [[512.0, 6.0]], [[128.0, 0.0]]], dtype=np.float32)
    before = actions.copy()
    data = dict(observations=np.zeros((3, 1)), actions=actions, rewards=np.zeros(3), terminations=np.ones(3))
    buffer = OfflineBuffer(OfflineDataset.from_dict(data), ANY, space)
    expected = th.tensor([[-1.0, -1.0], [1.0, 1.0], [-0.5, -0.5]])
    th.testing.assert_close(buffer.draw(th.arange(3)).actions, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(actions, before)


# Frames.


def frame_data(channels_last: bool) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Pictures filled with the number of their state; and the numbers of each trajectory's states, in order."""
    lengths = [1, 4, 2, 6]
    numbers, states, ends = [], [], []
    for length in lengths:
        first = len(numbers)
        states.append(list(range(first, first + length + 1)))
        numbers += states[-1]
        ends += [0] * length + [1]
    frames = np.array(numbers, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 4), dtype=np.uint8)
    frames[:, 1] += 100  # so that channels differ
    if channels_last:
        frames = frames.transpose(0, 2, 3, 1)
    n = len(numbers)
    data = dict(observations=frames, actions=np.zeros((n, 2)), rewards=np.zeros(n), masks=np.ones(n), terminals=np.array(ends))
    return data, states


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_stacked_frames(n_frames: int, channels_last: bool) -> None:
    """
    T10: the oldest frame first; at the start of a trajectory its first frame is repeated; two trajectories never mix;
    next observations end with the true next frame; bytes stay bytes.
    """
    data, trajectories = frame_data(channels_last)
    space = spaces.Box(0, 255, (2 * n_frames, 3, 4), np.uint8)
    buffer = OfflineBuffer(OfflineDataset.from_dict(data), space, UNIT)

    def stacks(batch_part: th.Tensor) -> list[list[int]]:
        assert batch_part.dtype == th.uint8 and batch_part.shape[1:] == (2 * n_frames, 3, 4)
        flat = batch_part.flatten(start_dim=2)
        assert (flat == flat[:, :, :1]).all()
        assert th.equal(flat[:, 1::2], flat[:, ::2] + 100)
        return flat[:, ::2, 0].tolist()

    batch = buffer.draw(th.arange(len(buffer)))
    steps = [(states, i) for states in trajectories for i in range(len(states) - 1)]
    assert stacks(batch.observations) == [
        [states[max(i - age, 0)] for age in reversed(range(n_frames))] for states, i in steps
    ]
    assert stacks(batch.next_observations) == [
        [states[max(i + 1 - age, 0)] for age in reversed(range(n_frames))] for states, i in steps
    ]
    three = buffer.draw(th.arange(len(buffer)), n_steps=3)
    assert stacks(three.next_observations) == [
        [states[max(min(i + 3, len(states) - 1) - age, 0)] for age in reversed(range(n_frames))] for states, i in steps
    ]


def test_frames_of_a_dictionary() -> None:
    """Each part by its own rule: one camera stacked, one not, and a vector."""
    data, trajectories = frame_data(False)
    frames = data["observations"]
    data["observations"] = {"wide": frames, "near": frames, "state": frames[:, 0, 0, 0].astype(np.float64)[:, None]}  # type: ignore
    space = spaces.Dict(wide=spaces.Box(0, 255, (4, 3, 4), np.uint8), near=spaces.Box(0, 255, (2, 3, 4), np.uint8), state=ANY)
    buffer = OfflineBuffer(OfflineDataset.from_dict(data), space, UNIT)
    batch = buffer.draw(th.arange(len(buffer)))
    steps = [(states, i) for states in trajectories for i in range(len(states) - 1)]
    assert batch.observations["wide"][:, ::2, 0, 0].tolist() == [[states[max(i - 1, 0)], states[i]] for states, i in steps]
    assert batch.observations["near"][:, 0, 0, 0].tolist() == [states[i] for states, i in steps]
    assert batch.observations["state"].dtype == th.float32
    assert batch.next_observations["state"][:, 0].tolist() == [states[i + 1] for states, i in steps]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_memory_mapped_columns_are_not_copied(dtype: type, tmp_path: pathlib.Path) -> None:
    """float32 and uint8 columns in files stay there: the buffer reads the very same memory."""
    space = spaces.Box(0, 255, (3, 8, 8), np.uint8) if dtype is np.uint8 else ANY
    array = np.arange(40 * int(np.prod(space.shape)), dtype=np.int64).reshape(40, *space.shape).astype(dtype)
    for name, values in (("a", array), ("b", array[::-1].copy())):
        np.save(tmp_path / f"{name}.npy", values)
    first, second = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ab")
    rewards = np.linspace(0, 1, 40, dtype=np.float32)
    data = dict(
        observations=first, next_observations=second, actions=np.zeros((40, 2)), rewards=rewards, terminations=np.zeros(40)
    )
    buffer = OfflineBuffer(OfflineDataset.from_dict(data), space, UNIT)
    assert buffer.next_observations is not None
    assert buffer.observations.columns[""].data_ptr() == first.ctypes.data
    assert buffer.next_observations.columns[""].data_ptr() == second.ctypes.data
    assert buffer.transitions.rewards.data_ptr() == rewards.ctypes.data
    batch = buffer.draw(th.tensor([3, 39]))
    np.testing.assert_array_equal(batch.observations, array[[3, 39]])
    np.testing.assert_array_equal(batch.next_observations, array[[36, 0]])


# Online.


def fill(
    buffer: OnlineBuffer | ReplayBuffer, seed: int, n_adds: int, n_envs: int, cuts: tuple[int, ...] = (), key: str = ""
) -> tuple[list[list[Trajectory]], list[list[tuple[int, int, int]]]]:
    """
    Add random episodes.

    :return: the trajectories of each environment, and for each addition and environment where its step is in them
    """
    rng = np.random.default_rng(seed)
    trajectories: list[list[Trajectory]] = [[[]] for _ in range(n_envs)]
    places: list[list[tuple[int, int, int]]] = []
    states = [1000.0 * e for e in range(n_envs)]
    for count in range(n_adds):
        ended, timeout = rng.random(n_envs) < 0.3, rng.random(n_envs) < 0.5
        rewards, number = rng.normal(size=n_envs), count * n_envs + np.arange(n_envs)
        actions = np.stack([number / 1000, -number / 1000], axis=1)
        obs = np.array(states)[:, None]
        infos = [{"TimeLimit.truncated": bool(timeout[e])} if ended[e] else {} for e in range(n_envs)]
        following = obs + 1
        if key:
            obs, following = {key: obs, "image": obs * np.ones(2)}, {key: following, "image": following * np.ones(2)}
        buffer.add(obs, following, actions, rewards, ended, infos)
        places.append([])
        for e in range(n_envs):
            termination = bool(ended[e] and not timeout[e])
            step = Step(states[e], (float(actions[e, 0]), float(actions[e, 1])), float(rewards[e]), termination, states[e] + 1)
            trajectories[e][-1].append(step)
            places[-1].append((e, len(trajectories[e]) - 1, len(trajectories[e][-1]) - 1))
            states[e] += 1
            if ended[e] or count in cuts:
                trajectories[e].append([])
                states[e] += 1
        if count in cuts:
            buffer.cut()  # type: ignore[union-attr]
    return trajectories, places


@pytest.mark.parametrize("chunk_length", [1, 3])
@pytest.mark.parametrize(("n_envs", "n_adds"), [(1, 5), (1, 20), (1, 47), (3, 20), (3, 53)])
@pytest.mark.parametrize("seed", SEEDS)
def test_ring(n_envs: int, n_adds: int, chunk_length: int, seed: int) -> None:
    """
    What is in the ring gives the returns and chunks of its trajectories, before and after wrapping around, for each
    environment: nothing crosses from the newest row to the oldest one, a time limit ends but bootstraps, a termination
    does not, and a cut ends without either.
    """
    length = 20
    buffer = OnlineBuffer(length * n_envs, ANY, UNIT, "cpu", n_envs)
    trajectories, places = fill(buffer, seed, n_adds, n_envs, cuts=(7, 30, n_adds - 3))
    kept = min(n_adds, length)
    assert len(buffer) == kept * n_envs
    rows, where = [], []
    for count in range(n_adds - kept, n_adds):
        for e in range(n_envs):
            rows.append((count % length) * n_envs + e)
            where.append(places[count][e])
    assert sorted(rows) == list(range(len(buffer)))
    for n_steps in (1, 2, 5) if chunk_length == 1 else (1,):
        if chunk_length == 1:
            expected = [follow(trajectories[e][t], i, n_steps) for e, t, i in where]
        else:
            expected = [follow_chunk(trajectories[e][t], i, chunk_length) for e, t, i in where]
        check(buffer.draw(th.tensor(rows), n_steps, GAMMA, chunk_length), expected, chunk_length)


def test_newest_row_ends_only_as_long_as_it_is_the_newest() -> None:
    """A return stops at the newest row, and goes through it once another one follows."""
    buffer = OnlineBuffer(10, ANY, UNIT, "cpu")

    def add(state: float) -> None:
        buffer.add(np.array([[state]]), np.array([[state + 1]]), np.zeros((1, 2)), np.ones(1), np.zeros(1), [{}])

    add(0.0)
    assert buffer.draw(th.tensor([0]), 2, 0.5).rewards.item() == 1.0
    add(1.0)
    assert buffer.draw(th.tensor([0]), 2, 0.5).rewards.item() == 1.5
    buffer.cut()
    add(5.0)
    assert buffer.draw(th.tensor([0]), 3, 0.5).rewards.item() == 1.5
    assert buffer.draw(th.tensor([0]), 3, 0.5).next_observations.item() == 2.0


@pytest.mark.parametrize("n_adds", [6, 25])
@pytest.mark.parametrize("key", ["", "vector"])
def test_samples_mean_what_those_of_stable_baselines3_mean(key: str, n_adds: int) -> None:
    """Filled alike, ``sample`` and Stable-Baselines3's own buffer give the same set of transitions, shapes and types."""
    space: spaces.Space = ANY
    if key:
        space = spaces.Dict({key: ANY, "image": spaces.Box(-np.inf, np.inf, (2,))})
    ours = OnlineBuffer(40, space, UNIT, "cpu", 2)
    kind = DictReplayBuffer if key else ReplayBuffer
    theirs = kind(40, space, UNIT, "cpu", 2)
    for buffer in (ours, theirs):
        fill(buffer, seed=3, n_adds=n_adds, n_envs=2, key=key)
    assert (ours.size(), ours.pos, ours.full) == (theirs.size(), theirs.pos, theirs.full)
    found = []
    for buffer in (ours, theirs):
        sample = buffer.sample(1500)
        parts: list[th.Tensor] = []
        for value in sample[:5]:
            parts += [value[name] for name in sorted(value)] if isinstance(value, dict) else [value]
        assert all(part.dtype == th.float32 for part in parts)
        found.append(([part.shape for part in parts], {tuple(row) for row in th.cat(parts, dim=1).round(decimals=5).tolist()}))
    assert found[0] == found[1]
    assert len(found[0][1]) == 2 * min(n_adds, 20)


def test_nothing_is_allocated_before_the_first_transition() -> None:
    """A model that is only loaded needs no memory for a million images; the capacity is shared by the environments."""
    buffer = OnlineBuffer(1_000_000, spaces.Box(0, 255, (9, 64, 64), np.uint8), UNIT, "cpu", 4)
    assert not buffer.allocated and not hasattr(buffer, "stores")
    assert (len(buffer), buffer.buffer_size) == (0, 250_000)


def test_images_stay_bytes() -> None:
    """uint8 observations are stored as such, others as float32."""
    space = spaces.Dict(camera=spaces.Box(0, 255, (1, 8, 8), np.uint8), state=ANY)
    buffer = OnlineBuffer(5, space, UNIT, "cpu")
    obs = {"camera": np.full((1, 1, 8, 8), 200, dtype=np.uint8), "state": np.array([[0.25]])}
    buffer.add(obs, obs, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])
    batch = buffer.draw(th.tensor([0]))
    assert {key: part.dtype for key, part in batch.observations.items()} == {"camera": th.uint8, "state": th.float32}
    assert buffer.stores["camera"].dtype == np.uint8
    assert (batch.next_observations["camera"] == 200).all()


def test_a_single_environment_needs_no_axis() -> None:
    """Demonstrations are added one by one as to SB3's replay buffers: an observation, a number and a flag; also as lists."""
    states, space = np.arange(6.0).reshape(3, 2), spaces.Box(-9, 9, (2,), np.float32)
    ours, theirs = OnlineBuffer(5, space, UNIT, "cpu"), ReplayBuffer(5, space, UNIT, "cpu")
    for buffer in (ours, theirs):
        for now, following in pairwise(states):
            buffer.add(now, following, np.array([0.5, -0.5]), 2.0, False, [{}])  # type: ignore[arg-type]
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name)[:2])
    ours.add([[4, 5]], [[6, 7]], [[0.5, -0.5]], [2.0], [True], [{}])  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours.next_observations[2], [[6, 7]])


@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (3,), (2, 1, 2)])
def test_observations_of_another_shape_are_not_stored(shape: tuple[int, ...]) -> None:
    """Such as images with channels last, of which each plane would be a row of pixels."""
    buffer = OnlineBuffer(5, spaces.Box(-9, 9, (2,), np.float32), UNIT, "cpu", 2)
    good, bad = np.zeros((2, 2)), np.zeros(shape)
    for observations in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=r"observations to store has the shape .*; expected \(2, 2\)"):
            buffer.add(*observations, np.zeros((2, 2)), np.zeros(2), np.zeros(2), [{}, {}])
    assert len(buffer) == 0 and not buffer.allocated
    parts = OnlineBuffer(5, spaces.Dict(a=ANY, b=ANY), UNIT, "cpu")
    with pytest.raises(ValueError, match="have the parts a; expected the parts a, b"):
        parts.add({"a": np.zeros((1, 1))}, {"a": np.zeros((1, 1))}, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])


def same(first: Batch, second: Batch) -> bool:
    return all(th.equal(a, b) for a, b in zip(first, second, strict=True))


def test_pickling() -> None:
    """A pickled ring is the same ring, and goes on in the same way, through the same open episode."""
    buffer = OnlineBuffer(12, ANY, UNIT, "cpu", 2)
    fill(buffer, seed=4, n_adds=9, n_envs=2)
    copied = pickle.loads(pickle.dumps(buffer))
    for _ in range(2):
        indices = th.arange(len(buffer))
        assert len(copied) == len(buffer)
        assert same(copied.draw(indices, 3, GAMMA), buffer.draw(indices, 3, GAMMA))
        for one in (buffer, copied):
            fill(one, seed=5, n_adds=4, n_envs=2)


def test_saved_replay_buffer(tmp_path: pathlib.Path) -> None:
    """``save_replay_buffer`` and ``load_replay_buffer`` keep everything."""
    model = FQL("FlowPolicy", SpacesOnly(), buffer_size=20, device="cpu", policy_kwargs={"net_arch": [4]})
    fill(model.replay_buffer, seed=6, n_adds=27, n_envs=1)
    model.save_replay_buffer(tmp_path / "buffer")
    other = FQL("FlowPolicy", SpacesOnly(), buffer_size=20, device="cpu", policy_kwargs={"net_arch": [4]})
    other.load_replay_buffer(tmp_path / "buffer")
    assert len(other.replay_buffer) == 20
    assert same(other.replay_buffer.draw(th.arange(20), 4, GAMMA), model.replay_buffer.draw(th.arange(20), 4, GAMMA))


# Mixing.


def mixed_model(n_offline: int, n_online: int, **kwargs: Any) -> FQL:
    """A model with data whose rewards number all transitions, the offline ones from 0, the online ones after these."""
    data = dict(
        observations=np.zeros((n_offline, 1)),
        next_observations=np.zeros((n_offline, 1)),
        actions=np.zeros((n_offline, 2)),
        rewards=np.arange(n_offline),
        terminations=np.zeros(n_offline),
    )
    model = FQL("FlowPolicy", SpacesOnly(), dataset=data, device="cpu", seed=0, policy_kwargs={"net_arch": [4]}, **kwargs)
    one, done = np.ones((1, 1)), np.zeros(1)
    for i in range(n_online):
        model.replay_buffer.add(one, one, np.zeros((1, 2)), np.array([n_offline + i]), done, [{}])
    return model


def test_uniform_over_the_union() -> None:
    """Section 7: by default each transition is equally likely, whether offline or online; the share of a batch varies."""
    model = mixed_model(30, 10)
    draws = [model.sample_batch(64).rewards.long() for _ in range(400)]
    counts = th.bincount(th.cat(draws), minlength=40)
    mean = 400 * 64 / 40
    assert len(counts) == 40
    # 39 degrees of freedom: mean 39, standard deviation 8.8
    assert ((counts - mean) ** 2 / mean).sum().item() < 39 + 5 * 8.8
    shares = th.tensor([(draw >= 30).float().mean() for draw in draws])
    assert shares.mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / (400 * 64)) ** 0.5)
    assert shares.std().item() == pytest.approx((0.25 * 0.75 / 64) ** 0.5, rel=0.15)


@pytest.mark.parametrize(("batch_size", "offline"), [(64, 32), (7, 3)])
def test_balanced_halves(batch_size: int, offline: int) -> None:
    """Balanced: half of each batch is offline, half online, whatever the sizes of the two."""
    model = mixed_model(300, 5, balanced_sampling=True)
    for _ in range(10):
        rewards = model.sample_batch(batch_size).rewards
        assert len(rewards) == batch_size
        assert (rewards < 300).sum().item() == offline


@pytest.mark.parametrize("balanced_sampling", [False, True])
def test_offline_only_as_long_as_nothing_was_collected(balanced_sampling: bool) -> None:
    """With an empty replay buffer all comes from the dataset."""
    model = mixed_model(30, 0, balanced_sampling=balanced_sampling)
    rewards = th.cat([model.sample_batch(64).rewards for _ in range(10)])
    assert set(rewards.long().tolist()) == set(range(30))


def test_concatenate() -> None:
    """All columns of the first batch, then all of the second, dictionaries by key."""
    first = Batch({"a": th.zeros(2, 1)}, th.zeros(2, 3), *[th.zeros(2)] * 3, {"a": th.zeros(2, 1)}, th.zeros(2))
    second = Batch({"a": th.ones(1, 1)}, th.ones(1, 3), *[th.ones(1)] * 3, {"a": th.ones(1, 1)}, th.ones(1))
    joined = concatenate(first, second)
    assert joined.observations["a"][:, 0].tolist() == joined.next_observations["a"][:, 0].tolist() == [0, 0, 1]
    for column in (joined.rewards, joined.masks, joined.discounts, joined.valids, joined.actions[:, 1]):
        assert column.tolist() == [0, 0, 1]


def test_steps_of_the_algorithm() -> None:
    """The algorithm hands its ``n_steps`` and ``gamma`` to the buffers: the reward is sum of gamma^i r_i."""
    model = mixed_model(50, 0, n_steps=3, gamma=0.5)
    batch = model.sample_batch(200)
    full = batch.discounts == 0.125
    # r + (r + 1) / 2 + (r + 2) / 4 = 1.75 r + 1
    first = (batch.rewards[full] - 1) / 1.75
    th.testing.assert_close(first, first.round())
    assert full.sum().item() > 150
    assert set(batch.discounts.tolist()) <= {0.5, 0.25, 0.125}


def test_chunks_of_the_algorithm() -> None:
    """With ``horizon_length`` both buffers give chunks of that length, flat, and returns over as many steps."""
    model = mixed_model(50, 0, horizon_length=3, gamma=0.5)
    for i in range(50):
        obs, action = np.ones((1, 1)), np.full((1, 2), i / 100)
        model.replay_buffer.add(obs, obs, action, np.array([1000.0 + i]), np.array([i % 10 == 9]), [{}])
    batch = model.sample_batch(400)
    assert batch.actions.shape == (400, 2 * 3) and model.policy.action_dim == 2 * 3
    full = batch.valids == 1
    assert set(batch.valids.tolist()) == {0.0, 1.0}
    assert set(batch.discounts[full].tolist()) == {0.125}
    assert set(batch.discounts[~full].tolist()) == {0.5, 0.25}
    first = (batch.rewards[full] - 1) / 1.75  # r + (r + 1) / 2 + (r + 2) / 4 = 1.75 r + 1
    th.testing.assert_close(first, first.round())
    online = batch.rewards[full] > 1000
    assert 0 < online.sum().item() < len(online)
    rows = (batch.rewards[full][online] - 1) / 1.75 - 1000
    expected = th.stack([rows, rows, rows + 1, rows + 1, rows + 2, rows + 2], dim=1) / 100
    th.testing.assert_close(batch.actions[full][online], expected, rtol=0, atol=1e-5)
