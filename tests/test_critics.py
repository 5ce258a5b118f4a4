"""Common to the critics of all methods: pessimism, targets of chunks, sparse rewards, and gradients clipped together."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow import FQL, QAM
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.flow_algorithm import clip_gradients
from sb3_flow.common.type_aliases import Batch

ANY, UNIT = spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(-1.0, 1.0, (2,))


def make_model(cls: type = QAM, env: Any = None, **kwargs: Any) -> Any:
    policy_kwargs = {"net_arch": [8], "n_critics": 2}
    return cls("FlowPolicy", env or AnySpaces(ANY, UNIT), policy_kwargs=policy_kwargs, device="cpu", seed=0, **kwargs)


# Pessimism.


def constant_critics(model: Any, **values: list[float]) -> None:
    """Networks (``critic``, ``critic_target``) that give each critic's value whatever they are asked."""
    with th.no_grad():
        for network, numbers in values.items():
            net = getattr(model.policy, network).net
            net.weights[-1].zero_()
            net.biases[-1].copy_(th.tensor(numbers).reshape(-1, 1, 1))


@pytest.mark.parametrize(("rho", "mask", "target"), [(0.5, 1.0, -0.505), (0.0, 1.0, -0.01), (0.5, 0.0, -1.0)])
def test_pessimistic_target(rho: float, mask: float, target: float) -> None:
    """r = -1, target critics {0, 2}: -1 + .99 (1 - rho). With critics that say {0, 1}, (y^2 + (1 - y)^2) / 2 is the loss."""
    model = make_model(rho=rho)
    constant_critics(model, critic_target=[0.0, 2.0], critic=[0.0, 1.0])
    ones, obs = th.ones(16), th.randn(16, 1)
    batch = Batch(obs, th.zeros(16, 2), -ones, mask * ones, 0.99 * ones, obs, ones)
    loss, _ = model.critic_loss(batch, model.draw_noise(16))
    assert loss.item() == pytest.approx((target**2 + (1 - target) ** 2) / 2, rel=1e-5)


def test_pessimism_takes_the_population_deviation() -> None:
    """Of three critics, where PyTorch's default is another one; of critics that agree, and of one, nothing is taken."""
    for values, expected in (([1.0, 2.0, 6.0], 3 - 2 * math.sqrt(14 / 3)), ([1.5] * 3, 1.5), ([4.0], 4.0)):
        model = QAM(
            "FlowPolicy", AnySpaces(ANY, UNIT), rho=2.0, policy_kwargs={"net_arch": [8], "n_critics": len(values)}, seed=0
        )
        constant_critics(model, critic_target=values, critic=[0.0] * len(values))
        ones, obs = th.ones(4), th.randn(4, 1)
        loss, _ = model.critic_loss(Batch(obs, th.zeros(4, 2), 0 * ones, ones, ones, obs, ones), model.draw_noise(4))
        assert loss.item() == pytest.approx(expected**2, rel=1e-5)


# Chunks.

CHUNKS = {
    "observations": np.array([[0.0], [1.0], [2.0]]),
    "actions": np.array([[0.1, -0.1], [0.2, -0.2], [0.3, -0.3]]),
    "next_observations": np.array([[1.0], [2.0], [3.0]]),
    "rewards": np.array([-1.0, -1.0, 0.0]),
    "masks": np.array([1.0, 1.0, 0.0]),
    "terminals": np.array([0.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("cls", [FQL, QAM])
def test_arithmetic_of_chunks(cls: type) -> None:
    """The method's own numbers: three steps, the last of which solves the task; and a chunk which crosses the end."""
    model = make_model(cls, dataset=CHUNKS, horizon_length=3, gamma=0.9)
    batch = model.offline_buffer.draw(th.tensor([0, 1]), gamma=0.9, chunk_length=3)
    assert batch.rewards.tolist() == pytest.approx([-1.9, -1.0])
    assert batch.masks.tolist() == [0, 0]
    assert batch.valids.tolist() == [1, 0]
    assert batch.next_observations[:, 0].tolist() == [3, 3]
    assert batch.actions[0].tolist() == pytest.approx([0.1, -0.1, 0.2, -0.2, 0.3, -0.3])
    # y = -1.9 whatever comes next; the second chunk counts nothing, and the mean is over both all the same.
    constant_critics(model, critic_target=[5.0, 7.0], critic=[0.0, 0.0])
    loss, _ = model.critic_loss(batch, model.draw_noise(2))
    assert loss.item() == pytest.approx(1.9**2 / 2, rel=1e-6)


def test_discount_of_a_chunk() -> None:
    """What follows a chunk of three is worth ``gamma^3``."""
    data = {**CHUNKS, "masks": np.ones(3)}
    model = make_model(dataset=data, horizon_length=3, gamma=0.9, rho=0.5)
    constant_critics(model, critic_target=[0.0, 2.0], critic=[0.0, 0.0])
    batch = model.offline_buffer.draw(th.tensor([0]), gamma=0.9, chunk_length=3)
    loss, _ = model.critic_loss(batch, model.draw_noise(1))
    assert loss.item() == pytest.approx((-1.9 + 0.729 * 0.5) ** 2, rel=1e-5)


@pytest.mark.parametrize("cls", [FQL, QAM])
def test_gradient_of_the_target(cls: type) -> None:
    """The target has no gradient: the loss changes the critics only through their own values."""
    model = make_model(cls)
    ones, obs = th.ones(4), th.randn(4, 1)
    batch = Batch(obs, th.zeros(4, 2), ones, 0 * ones, ones, obs, ones)
    loss, metrics = model.critic_loss(batch, model.draw_noise(4))
    loss.backward()
    moved = {name.split(".")[0] for name, p in model.policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"critic"}
    with th.no_grad():
        qs = model.policy.q_values(model.policy.critic, obs, th.zeros(4, 2))
    assert loss.item() == pytest.approx((qs - 1).square().mean().item(), rel=1e-6)
    assert metrics["q_min"].item() == qs.min().item() and metrics["q_max"].item() == qs.max().item()


# Sparse rewards.

DENSE = np.array([-3.0, -2.0, 0.0, -0.5, -1.0, 0.0], np.float32)
SPARSE = [-1.0, -1.0, 0.0, -1.0, -1.0, 0.0]


def offline(sparse_rewards: bool) -> OfflineBuffer:
    n = len(DENSE)
    flags = np.zeros(n, dtype=bool)
    data = OfflineDataset(
        np.zeros((n, 1)), np.zeros((n, 2)), DENSE, flags, flags | (np.arange(n) == n - 1), ~flags, None, "data"
    )
    return OfflineBuffer(data, ANY, UNIT, sparse_rewards=sparse_rewards)


def online(sparse_rewards: bool) -> OnlineBuffer:
    buffer = OnlineBuffer(100, ANY, UNIT, "cpu", sparse_rewards=sparse_rewards)
    for i, reward in enumerate(DENSE):
        done = np.array([i == len(DENSE) - 1])
        buffer.add(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 2)), np.array([reward]), done, [{}])
    return buffer


@pytest.mark.parametrize("make", [offline, online])
def test_sparse_rewards(make: Any) -> None:
    """Every reward but 0 is drawn as -1, one by one or summed, from the data as from what is collected."""
    rows = th.arange(6)
    assert make(False).draw(rows).rewards.tolist() == DENSE.tolist()
    assert make(True).draw(rows).rewards.tolist() == SPARSE
    for options in ({"n_steps": 3}, {"chunk_length": 3}):
        rewards = make(True).draw(rows[:4], gamma=0.5, **options).rewards
        assert rewards.tolist() == [SPARSE[i] + 0.5 * SPARSE[i + 1] + 0.25 * SPARSE[i + 2] for i in range(4)]


class Costly(AnySpaces):
    """Random rewards below 0."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, -abs(reward), *rest


def test_sparse_rewards_of_a_model() -> None:
    """In both phases each reward below 0 is drawn as -1. The data and what is collected stay as they are."""
    env = DummyVecEnv([lambda: Costly(ANY, UNIT)])
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.normal(size=(50, 1)),
        "actions": rng.uniform(-1, 1, (50, 2)),
        "rewards": np.where(np.arange(50) % 2, -4.0, 0.0),
        "terminations": np.arange(50) == 49,
    }
    before = data["rewards"].copy()
    model = make_model(env=env, dataset=data, sparse_rewards=True, offline_steps=2, batch_size=64, learning_starts=0)
    model.learn(12)  # then ten steps of the environment, none of whose rewards is 0
    for buffer, expected in ((model.offline_buffer, {-1.0, 0.0}), (model.replay_buffer, {-1.0})):
        assert set(buffer.draw(th.arange(10)).rewards.tolist()) == expected
    assert set(model.sample_batch(256).rewards.tolist()) == {-1.0, 0.0}
    np.testing.assert_array_equal(data["rewards"], before)
    collected = set(model.replay_buffer.transitions.rewards[:10].tolist())
    assert len(collected) == 10 and max(collected) < 0  # what is stored are the rewards of the environment


def test_rewards_that_cannot_be_sparse() -> None:
    """A reward above 0 would be punished; normalized rewards would not be -1 and 0."""
    rewards = DENSE.copy()
    rewards[4] = 2.0
    data = {"observations": np.zeros((6, 1)), "actions": np.zeros((6, 2)), "rewards": rewards, "terminations": np.ones(6)}
    with pytest.raises(ValueError, match=r"`rewards` row 4 is 2\. `sparse_rewards=True` is for rewards of 0"):
        make_model(dataset=data, sparse_rewards=True)
    with pytest.raises(ValueError, match=r"The environment: `rewards` row 0 is .*`sparse_rewards=True`"):
        make_model(sparse_rewards=True).learn(20)  # whose rewards are of either sign
    with pytest.raises(ValueError, match="`norm_reward=False`"):
        make_model(env=VecNormalize(DummyVecEnv([lambda: Costly(ANY, UNIT)])), sparse_rewards=True)


def test_dense_rewards_are_the_default() -> None:
    assert not make_model().sparse_rewards
    assert set(make_model(dataset=CHUNKS).offline_buffer.draw(th.arange(3)).rewards.tolist()) == {-1.0, 0.0}


# Gradients clipped together.


def with_gradients(*gradients: list[float]) -> tuple[list[th.nn.Parameter], th.optim.Optimizer]:
    parameters = [th.nn.Parameter(th.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = th.tensor(gradient)
    idle = th.nn.Parameter(th.zeros(2))  # no gradient reached it
    return parameters, th.optim.Adam([{"params": parameters[:1]}, {"params": [*parameters[1:], idle]}])


def test_gradients_are_clipped_together() -> None:
    """One factor for all groups: norms 3 and 4 are 5 together, which become 3/5 and 4/5 at a limit of 1."""
    (first, second), optimizer = with_gradients([3.0, 0.0], [0.0, 4.0, 0.0])
    assert clip_gradients(optimizer, 1.0).item() == 5
    assert first.grad.tolist() == pytest.approx([0.6, 0.0], rel=1e-6)
    assert second.grad.tolist() == pytest.approx([0.0, 0.8, 0.0], rel=1e-6)


@pytest.mark.parametrize(("second", "limit"), [([4.0, 0.0], 5.0), ([1 / 3, 1 / 7], 3.1), ([1 / 3, 1 / 7], 1e6)])
def test_short_gradients_stay_as_they_are(second: list[float], limit: float) -> None:
    """Bit by bit, at the limit too."""
    parameters, optimizer = with_gradients([3.0, 1e-30], second)
    norm = clip_gradients(optimizer, limit)
    assert norm.item() == pytest.approx(math.hypot(3.0, *second), rel=1e-6)
    assert norm.item() <= limit
    assert th.equal(parameters[0].grad, th.tensor([3.0, 1e-30])) and th.equal(parameters[1].grad, th.tensor(second))


def test_no_gradient_at_all() -> None:
    (parameter,), optimizer = with_gradients([0.0, 0.0])
    assert clip_gradients(optimizer, 1.0).item() == 0
    assert parameter.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("cls", [FQL, QAM])
def test_clipping_of_an_algorithm(cls: type) -> None:
    """Any of them takes ``max_grad_norm``; above the norm it changes nothing, below it the step's gradients are scaled."""
    gradients = {}
    for limit in (None, 1e9, 0.01):
        model = make_model(cls, dataset=CHUNKS, max_grad_norm=limit)
        metrics = model.update(model.sample_batch(8), model.draw_noise(8))
        gradients[limit] = th.cat([p.grad.flatten() for p in model.policy.parameters() if p.grad is not None])
        assert ("grad_norm" in metrics) == (limit is not None)
    assert th.equal(gradients[None], gradients[1e9])
    factor = 0.01 / gradients[None].norm()
    assert factor < 1
    th.testing.assert_close(gradients[0.01], factor * gradients[None], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.0, "above 0, or None"), (-1.0, "above 0, or None"), (math.nan, "must be a finite number")]
)
def test_a_limit_that_makes_no_sense(limit: float, expected: str) -> None:
    with pytest.raises(ValueError, match=f"`max_grad_norm` is {limit}; .*{expected}"):
        make_model(max_grad_norm=limit)
