"""FlowOpt: its losses against plain arithmetic, its stages, what it plans, and what it is saved as."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.scenes import MOST_ROBOTS, plans, scenes
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_flow
from sb3_flow import FlowOpt
from sb3_flow.baselines.diffusion_opt import DiffusionOpt
from sb3_flow.common.schedules import InTurn, WarmUpCosine
from sb3_flow.common.type_aliases import Batch
from sb3_flow.flow_opt.policies import MULTIPLIERS
from sb3_flow.methods import SMALL_PLANS as SMALL_SETTINGS
from sb3_flow.planning import observations, polish, safety_filter, warm_start
from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.measures import measure
from sb3_flow.planning.problems import Limits

TINY: dict[str, Any] = {name: value for name, value in SMALL_SETTINGS["policy_kwargs"].items() if name != "best_of_n"}
SMALL_PLANS: dict[str, Any] = {**SMALL_SETTINGS, "device": "cpu", "seed": 0}

CPU = th.device("cpu")


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return plans()


@pytest.fixture
def make(data: dict[str, Any]) -> Any:
    def make(cls: type[FlowOpt] = FlowOpt, **kwargs: Any) -> FlowOpt:
        return cls("FlowPolicy", scenes(), **{**SMALL_PLANS, "dataset": data, **kwargs})

    return make


@pytest.fixture
def model(make: Any) -> FlowOpt:
    return make()


def observe(n: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    env = scenes()
    rows = [env.reset(seed=seed + i)[0] for i in range(n)]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def draw(model: FlowOpt, n: int = 16) -> tuple[Batch, Any]:
    return model.sample_batch(n), model.draw_noise(n)


def disturb(module: th.nn.Module, size: float = 0.05) -> None:
    generator = th.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data += size * th.randn(parameter.shape, generator=generator)


# Losses.


def test_an_untrained_flow_loses_the_variance_of_data_and_noise(make: Any) -> None:
    """Its velocity is 0, so the loss is E|x_1 - x_0|^2: 1 of the noise, 1 of data in units of its root mean square."""
    model = make(augment=False)
    batch, noise = draw(model, 4096)
    loss, _ = model.flow_loss(batch, noise)
    assert loss.item() == pytest.approx(2, abs=0.15)
    doubled = make(augment=False)
    doubled.policy.sigma *= 2
    assert doubled.flow_loss(batch, noise)[0].item() == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize("cls", [FlowOpt, DiffusionOpt])
def test_the_loss_is_a_mean_over_the_robots_that_there_are(make: Any, cls: type[FlowOpt]) -> None:
    """Against loops over single problems and robots, in float64, with the path and target written out."""
    model = make(cls, augment=False)
    policy = model.policy
    disturb(policy.flow)
    batch, noise = draw(model, 8)
    assert 0 < batch.observations["robot_mask"].mean() < 1
    total, count = 0.0, 0
    scale = observations.action_scale(policy.limits).double()
    for b in range(8):
        row = {key: value[b : b + 1] for key, value in batch.observations.items()}
        y = batch.actions[b].double().view(MOST_ROBOTS, 2, 7) * scale
        x1, x0, t = y / policy.sigma.double(), noise.x0[b].double().view_as(y), noise.t[b].item()
        if cls is FlowOpt:
            point, target = (1 - t) * x0 + t * x1, x1 - x0
        else:
            a, s = math.sin(math.pi / 2 * t), math.cos(math.pi / 2 * t)
            point, target = a * x1 + s * x0, a * x0 - s * x1
        context = policy.flow.context(policy.scene(policy.problems(row)))
        with th.no_grad():
            v = policy.flow(context, point.float().view(1, MOST_ROBOTS, 14), noise.t[b : b + 1])[0].double()
        for robot in range(MOST_ROBOTS):
            if row["robot_mask"][0, robot]:
                total += (v[robot] - target[robot].flatten()).square().sum().item()
                count += 14
    assert model.flow_loss(batch, noise)[0].item() == pytest.approx(total / count, rel=1e-5)


def test_noise_levels_of_diffusion(make: Any) -> None:
    t = make(DiffusionOpt).draw_noise(1000).t
    assert th.allclose(t * 1000, (t * 1000).round(), atol=1e-3) and t.max() < 1


def test_problems_are_turned_around(make: Any) -> None:
    plain, turned = make(augment=False), make(augment=True)
    batch, noise = draw(turned)
    y, turned_y = plain.examples(batch, noise)[1], turned.examples(batch, noise)[1]
    changed = (turned_y != y).flatten(start_dim=1).any(dim=1)
    assert 0.5 < changed.float().mean() <= 1
    assert th.allclose(turned_y.square().sum(dim=(1, 2, 3)), y.square().sum(dim=(1, 2, 3)), rtol=1e-5)


def test_the_unrolled_loss_is_that_of_the_filter(model: FlowOpt) -> None:
    policy = model.policy
    disturb(policy.initializer)
    batch, noise = draw(model)
    problems, proposals = model.proposals(batch, noise)
    assert len(proposals) == 4
    assert th.equal(proposals, policy.propose(problems, noise.x0[:4]))
    y, force = policy.starts(problems, proposals)
    unrolled = policy.filter.unroll(problems, proposals, y, force, 3)
    steps = [(unrolled.iterates[k + 1] - unrolled.iterates[k]).flatten(1).norm(dim=1).mean() for k in range(3)]
    pushes = [unrolled.pushes[k].flatten(1).norm(dim=1).mean() for k in range(3)]
    away = (unrolled.iterates[3] - proposals).flatten(1).norm(dim=1).square().mean()
    expected = sum(steps) / 3 + sum(pushes) / 3 + 0.05 * away
    assert model.unrolled_loss(batch, noise)[0].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("multipliers", MULTIPLIERS)
def test_the_imitation_loss_is_zero_at_the_solution(make: Any, monkeypatch: pytest.MonkeyPatch, multipliers: str) -> None:
    """Problems that the filter does not solve have no effect."""
    model = make(policy_kwargs={**TINY, "multipliers": multipliers}, initializer_batch_size=16)
    disturb(model.policy.flow_average, 0.2)
    batch, noise = draw(model)
    problems, proposals = model.proposals(batch, noise)
    cold = proposals, th.zeros_like(proposals)
    violations = model.policy.filter.unroll(problems, proposals, *cold, 20).violations
    solved = [int((violations[: k + 1] <= 0).any(dim=0).sum()) for k in range(20)]
    model.imitated_iterations = next(k for k in range(1, 20) if solved[0] < solved[k] < 16)
    unrolled = model.policy.filter.unroll(problems, proposals, *cold, model.imitated_iterations)
    solution, forces, found = unrolled.first_feasible()
    _, metrics = model.imitation_loss(batch, noise)
    assert metrics["imitation_loss"] == metrics["imitation_loss_cold"] > 0  # an untrained network changes nothing
    wrong = 9.0 * (~found)[:, None, None, None]
    monkeypatch.setattr(model.policy, "starts", lambda problems, proposals: (solution + wrong, forces + wrong))
    assert model.imitation_loss(batch, noise)[0].item() == 0
    monkeypatch.setattr(model.policy, "starts", lambda problems, proposals: (solution, forces + 1))
    assert (model.imitation_loss(batch, noise)[0].item() > 0) == (multipliers != "none")


def test_the_error_of_multipliers_is_that_of_the_displacements_that_they_hold(make: Any) -> None:
    """Against loops: 0.3 times the mean square of (lambda_0 - lambda*) / (sigma B), with B diagonal in the modes."""
    model = make(augment=False)
    policy = model.policy
    disturb(policy.initializer)
    problems, proposals = model.proposals(*draw(model))
    y_star, lambda_star = proposals + 0.1, proposals - 0.2
    y, forces = policy.starts(problems, proposals)
    stiffness, sigma = policy.basis.stiffness, policy.sigma.double()
    places, pushed, count = 0.0, 0.0, 0
    for b, robot in problems.robot_mask.nonzero().tolist():
        for j in range(7):
            metric = 1 + 0.5 * stiffness[j]
            places += ((y - y_star)[b, robot, :, j].double() / sigma[j]).square().sum().item()
            pushed += ((forces - lambda_star)[b, robot, :, j].double() / (metric * sigma[j])).square().sum().item()
            count += 2
    loss, _ = model.start_loss(problems, proposals, y_star, lambda_star)
    assert loss.item() == pytest.approx((places + 0.3 * pushed) / count, rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "trained"), [("flow_loss", "flow"), ("imitation_loss", "initializer"), ("unrolled_loss", "initializer")]
)
def test_who_learns(model: FlowOpt, loss: str, trained: str) -> None:
    for module in (model.policy.flow, model.policy.initializer):
        disturb(module)
    batch, noise = draw(model)
    getattr(model, loss)(batch, noise)[0].backward()
    reached = {
        name.split(".")[0]
        for name, parameter in model.policy.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert reached == {trained}


def test_places_and_multipliers_are_trained(model: FlowOpt) -> None:
    disturb(model.policy.initializer)
    model.unrolled_loss(*draw(model))[0].backward()
    gradient = model.policy.initializer.head.weight.grad
    assert gradient is not None
    places, forces = gradient.chunk(2)
    assert places.abs().sum() > 0 and forces.abs().sum() > 0


# Stages.


def test_stages_follow_one_another(make: Any) -> None:
    model = make(flow_fraction=0.5, imitation_fraction=0.4, warm_up=0.1)
    stages, before = [], {}
    original = model.update

    def update(batch: Batch, noise: Any) -> Any:
        before[model.stage] = {name: p.clone() for name, p in model.policy.named_parameters()}
        stages.append(model.stage)
        return original(batch, noise)

    model.update = update
    model.learn(20)
    assert stages == ["flow"] * 10 + ["imitate"] * 4 + ["unroll"] * 6
    after = dict(model.policy.named_parameters())
    for stage, still in (("imitate", "flow"), ("unroll", "flow")):
        assert all(th.equal(p, after[name]) for name, p in before[stage].items() if name.startswith(still))
    assert not all(th.equal(p, after[name]) for name, p in before["imitate"].items() if name.startswith("initializer"))


def test_each_stage_has_its_own_warm_up() -> None:
    schedule = InTurn(WarmUpCosine(lambda _: 1.0, 0.1), [0.5, 0.2, 0.3])
    for start, share in ((0.0, 0.5), (0.5, 0.2), (0.7, 0.3)):
        inside = [schedule(1 - start - share * part) for part in (0.001, 0.1, 0.55, 0.999)]
        assert inside == pytest.approx([0.01, 1.0, 0.5, 0.0], abs=1e-2)


def test_the_average_acts(model: FlowOpt) -> None:
    """It moves by a share of tau, and proposals come from it."""
    policy = model.policy
    batch, noise = draw(model)
    model.update(batch, noise)
    assert not any(average.requires_grad for average in policy.flow_average.parameters())
    old = policy.flow_average.head.weight.clone()
    model.update(batch, noise)
    expected = old + model.tau * (policy.flow.head.weight - old)
    assert th.allclose(policy.flow_average.head.weight, expected, atol=1e-7)
    proposals = model.proposals(batch, noise)[1]
    disturb(policy.flow)
    assert th.equal(model.proposals(batch, noise)[1], proposals)
    disturb(policy.flow_average)
    assert not th.equal(model.proposals(batch, noise)[1], proposals)


@pytest.mark.slow
def test_it_learns_where_plans_are(make: Any) -> None:
    """All data is one plan: the flow's proposals come close to it."""
    settings = {"batch_size": 64, "learning_rate": 1e-2, "tau": 0.05, "flow_fraction": 1.0, "augment": False}
    model = make()
    row = {key: value[:1] for key, value in model.offline_buffer.draw(th.tensor([0])).observations.items()}
    action = model.offline_buffer.draw(th.tensor([0])).actions
    same = {
        "observations": {key: value.expand(64, *value.shape[1:]).numpy() for key, value in row.items()},
        "actions": action.expand(64, -1).numpy(),
        "terminations": np.ones(64, dtype=bool),
        "truncations": np.zeros(64, dtype=bool),
    }
    model = make(dataset=same, **settings)
    noise = th.randn(50, model.policy.action_dim, generator=th.Generator().manual_seed(0))
    problems, y = model.policy.problems(row), model.policy.to_meters(action)

    def error() -> float:
        with th.no_grad():
            return float((model.policy.propose(problems, noise) - y).square().mean().sqrt())

    before = error()
    model.learn(300)
    assert error() < 0.25 * before


# Planning.


def test_an_untrained_initializer_changes_nothing(make: Any) -> None:
    observation = {key: th.as_tensor(value) for key, value in observe(3).items()}
    policy = make().policy
    problems = policy.problems(observation)
    proposals = policy.propose(problems, th.randn(3, policy.action_dim))
    y, force = policy.starts(problems, proposals)
    assert th.equal(y, proposals) and (force == 0).all()
    warm, cold = (policy.repair(problems, proposals, initialize, None) for initialize in (True, False))
    assert all(th.equal(a, b) for a, b in zip(warm, cold, strict=True))


def test_what_inference_caches_can_be_trained_with() -> None:
    """A gradient through a tensor that was created in inference mode is an error."""
    limits = Limits(dimensions=2, size=7.0, horizon=9.0)
    exact = safety_filter.SafetyFilter(limits, safety_filter.FilterSettings(majorizer="exact"))
    with th.inference_mode():
        basis, shift = make_basis(12, 64, 9.0), warm_start._shift(7, 9.0, 1.0)
        gentle = polish.gentle_filter(limits, safety_filter.FilterSettings(), th.float64, CPU)
        observations.plans(th.zeros(1, 2 * 2 * 7), limits)
        exact.tabulate(3, 2)
    cached = [basis.modes, shift, *gentle.buffers(), *exact.buffers(), observations._scale_on(CPU, limits, 12)]
    assert not any(tensor.is_inference() for tensor in cached)


def test_ways_to_start_the_multipliers(make: Any) -> None:
    starts = {}
    for multipliers in MULTIPLIERS:
        policy = make(policy_kwargs={**TINY, "multipliers": multipliers}).policy
        observation = {key: th.as_tensor(value) for key, value in observe(3).items()}
        problems = policy.problems(observation)
        proposals = th.ones(3, MOST_ROBOTS, 2, 7) * problems.robot_mask[..., None, None]
        y, forces = policy.starts(problems, proposals)
        assert th.equal(y, proposals) and not forces.any()  # not trained
        disturb(policy.initializer)
        starts[multipliers] = policy.starts(problems, proposals)
    moved = starts["free"][0] - proposals
    assert moved.any() and all(th.equal(y, starts["free"][0]) for y, _ in starts.values())
    assert not starts["none"][1].any()
    held = moved * (1 + 0.5 * policy.basis.stiffness).float()
    th.testing.assert_close(starts["matched"][1], starts["free"][1] + held, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`multipliers` is 'all'; it must be one of 'free', 'matched', 'none'"):
        make(policy_kwargs={**TINY, "multipliers": "all"})


def test_padding_stays_where_it_is(model: FlowOpt) -> None:
    policy = model.policy
    for module in (policy.flow_average, policy.initializer):
        disturb(module)
    observation = {key: th.as_tensor(value) for key, value in observe(6).items()}
    problems = policy.problems(observation)
    assert not problems.robot_mask.all()
    with th.no_grad():
        proposals = policy.propose(problems, th.randn(6, policy.action_dim))
        y, force = policy.starts(problems, proposals)
    for part in (proposals, y, force, policy.plan(observation).y):
        assert (part[~problems.robot_mask] == 0).all() and (part[problems.robot_mask] != 0).any()


def test_certified_plans_succeed_in_the_environment(model: FlowOpt) -> None:
    """What `plan` calls feasible, the environment's own judge, on a finer grid, calls a success."""
    disturb(model.policy.flow_average, 0.2)
    env: Any = scenes()
    certified = 0
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        action, _ = model.predict(observation)
        plan = model.last_plan
        assert plan is not None and action.shape == env.action_space.shape
        info = env.step(action)[-1]
        assert info["certified"] == bool(plan.feasible)
        assert info["certificate_margin"] == pytest.approx(float(plan.margin), abs=1e-9)
        assert info["is_success"] or not plan.feasible
        certified += int(plan.feasible)
    assert certified >= 18


def test_plan_tells_all(model: FlowOpt) -> None:
    observation = observe(3)
    plan = model.plan(observation, k=5)
    assert plan.y.shape == (3, 3, 2, 7) and plan.coefficients.shape == (3, 3, 2, 13)
    assert plan.candidates.y.shape[:2] == plan.candidates.feasible.shape == (3, 5)
    assert plan.time_ms > 0 and (plan.iterations >= 0).all()
    problems = model.policy.problems({key: th.as_tensor(value) for key, value in observation.items()})
    for b in range(3):
        feasible = plan.candidates.feasible[b]
        assert plan.feasible[b] and plan.cost[b] == plan.candidates.cost[b][feasible].min()
    assert measure(problems, plan.y, model.policy.limits).success.all()
    # The coefficients are the plan: they begin at the start and end at the goal.
    there = problems.robot_mask
    assert th.allclose(plan.coefficients[..., 0][there], problems.start[there].double())
    assert th.allclose(plan.coefficients[..., -1][there], problems.goal[there].double())


def test_what_no_plan_can_solve_is_reported(model: FlowOpt) -> None:
    """A robot between walls of obstacles that nothing passes: a plan comes back, marked as what it is."""
    env: Any = scenes()
    env.reset(seed=0)
    wall = [[0.0, y, 1.1] for y in (-2.9, 2.9)]
    scene = {"start": [[-3.0, 0.0], [3.0, 0.5]], "goal": [[3.0, 0.0], [-3.0, 0.5]], "obstacles": wall}
    tall = gym.make("sb3_flow/MultiRobot2D-v0", num_robots=2, num_obstacles=3, layout="circle")
    wall.append([0.0, 0.0, 1.7])
    tall.reset(seed=0)
    observation, _ = tall.reset(options={"scene": scene})
    blocked = FlowOpt(
        "FlowPolicy", tall, **{**SMALL_PLANS, "policy_kwargs": {**TINY, "filter_kwargs": {"max_iterations": 30}}}
    )
    plan = blocked.plan(observation)
    assert not plan.feasible.any() and plan.margin < 0 and th.isfinite(plan.y).all()
    assert plan.candidates.feasible.shape[1] == 3  # the proposal, and both rounds of the fallback
    assert not tall.step(blocked.predict(observation)[0])[-1]["is_success"]
    del env


@pytest.mark.parametrize("what", ["start", "goal"])
def test_plan_names_robots_that_overlap(model: FlowOpt, what: str) -> None:
    observation = observe()
    observation[what][0, 1] = observation[what][0, 0] + 0.01
    with pytest.raises(ValueError, match="robots 0 and 1"):
        model.plan(observation)
    model.predict(observation)
    assert model.last_plan is not None and not model.last_plan.feasible.any()


def test_fallback_can_be_turned_off(make: Any) -> None:
    model = make(policy_kwargs={**TINY, "fallback": False, "filter_kwargs": {"max_iterations": 1}})
    disturb(model.policy.flow_average, 0.5)
    plan = model.plan(observe(8))
    assert not plan.feasible.all() and plan.candidates.feasible.shape[1] == 1


def test_a_deadline_gives_what_there_is(model: FlowOpt) -> None:
    disturb(model.policy.flow_average, 0.5)
    plan = model.plan(observe(8), deadline_ms=0.001)
    patient = model.plan(observe(8))
    assert (plan.iterations == 0).all() and plan.candidates.feasible.shape[1] == 2
    assert patient.feasible.sum() > plan.feasible.sum()


def test_deterministic_plans_are_the_same_and_others_differ(model: FlowOpt) -> None:
    disturb(model.policy.flow_average, 0.2)
    observation = observe(2)
    first, second = (model.predict(observation, deterministic=True)[0] for _ in range(2))
    assert np.array_equal(first, second)
    alone = model.predict(observe(1), deterministic=True)[0][0]  # with any other problems in the batch
    np.testing.assert_allclose(first[0], alone, atol=1e-4)
    assert not np.array_equal(model.predict(observation)[0], model.predict(observation)[0])


def test_polished_plans_are_smoother(make: Any) -> None:
    rough, smooth = (make(policy_kwargs={**TINY, "polish_rounds": rounds}) for rounds in (0, 3))
    for model in (rough, smooth):
        disturb(model.policy.flow_average, 0.3)
    observation = observe(8)
    a, b = (model.plan(observation, deterministic=True) for model in (rough, smooth))
    both = a.feasible & b.feasible
    assert both.any() and (b.cost[both] <= a.cost[both] + 1e-6).all() and b.cost[both].mean() < a.cost[both].mean()
    # There is no time for it after the deadline.
    late = [model.plan(observation, deadline_ms=0.001, deterministic=True) for model in (rough, smooth)]
    assert late[0].feasible.any()
    th.testing.assert_close(late[0].y, late[1].y, rtol=0, atol=0)


@pytest.mark.slow
def test_the_samplers(model: FlowOpt) -> None:
    disturb(model.policy.flow_average, 0.5)
    env = scenes()
    filtered, _ = evaluate_policy(model, env, 10)
    raw, _ = evaluate_policy(model.policy.with_sampler("flow"), env, 10)
    assert filtered > raw


# Stable-Baselines3.


@pytest.mark.slow
def test_save_and_load(model: FlowOpt, tmp_path: Path) -> None:
    model.learn(30)
    model.save(tmp_path / "model")
    loaded = FlowOpt.load(tmp_path / "model", device="cpu")
    assert np.array_equal(loaded.predict(observe(2), deterministic=True)[0], model.predict(observe(2), deterministic=True)[0])
    assert loaded.policy.filter.settings == model.policy.filter.settings
    assert th.equal(loaded.policy.sigma, model.policy.sigma) and not (model.policy.sigma == 1).any()
    loaded.set_env(scenes())
    loaded.set_dataset(model.dataset)
    loaded.learn(5, reset_num_timesteps=False)
    assert th.equal(loaded.policy.sigma, model.policy.sigma)


@pytest.mark.slow
def test_settings_of_the_filter_are_saved(make: Any, tmp_path: Path) -> None:
    model = make(policy_kwargs={**TINY, "filter_kwargs": {"penalty": [7.0, 9.0]}})
    model.save(tmp_path / "model")
    assert FlowOpt.load(tmp_path / "model", device="cpu").policy.filter.settings.penalty == (7.0, 9.0)


def test_evaluation_reports_success(model: FlowOpt, tmp_path: Path) -> None:
    callback = EvalCallback(scenes(), eval_freq=5, n_eval_episodes=4, log_path=str(tmp_path), verbose=0)
    model.learn(10, callback=callback)
    assert np.load(tmp_path / "evaluations.npz")["successes"].shape == (2, 4)


def test_several_environments(data: dict[str, Any]) -> None:
    model = FlowOpt("FlowPolicy", DummyVecEnv([scenes, scenes]), **SMALL_PLANS, dataset=data)
    model.learn(4)
    assert model.n_offline_updates == 4
    rewards, _ = evaluate_policy(model, model.env, 4, return_episode_rewards=True)
    assert len(rewards) == 4


@pytest.mark.parametrize("env_id", ["MultiRobot2DReplan-v0", "MultiRobot3D-v0"])
def test_relatives_of_the_environment(env_id: str) -> None:
    env = gym.make(f"sb3_flow/{env_id}", num_robots=2, num_obstacles=1)
    check_env(env)
    model = FlowOpt("FlowPolicy", env, expert_scenes=3, **{**SMALL_PLANS, "batch_size": 4}).learn(3)
    observation, _ = env.reset(seed=0)
    assert env.action_space.contains(model.predict(observation)[0])


def test_without_data_the_expert_comes_first() -> None:
    model = FlowOpt("FlowPolicy", scenes(), expert_scenes=6, **SMALL_PLANS)
    model.learn(2)
    assert model.offline_buffer is not None and len(model.offline_buffer) >= 6
    assert model.n_env_steps == 0 and model.num_timesteps == 2


def test_the_same_seed_gives_the_same_model(make: Any) -> None:
    first, second = (make().learn(8).policy.state_dict() for _ in range(2))
    assert all(th.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"flow_fraction": 0.0}, "`flow_fraction` is 0.0"),
        ({"imitation_fraction": 1.5}, "`imitation_fraction` is 1.5"),
        ({"unrolled_iterations": 0}, "`unrolled_iterations` is 0"),
        ({"expert_scenes": 0}, "`expert_scenes` is 0"),
        ({"warm_up": 1.0}, "`warm_up` is 1.0"),
        ({"normalize_observations": True}, "do not normalize"),
        ({"degree": 11}, "`degree` is 11; it must be that of the environment"),
        ({"policy_kwargs": {"flow_steps": 0}}, "`flow_steps` is 0"),
        ({"policy_kwargs": {"attention_heads": 3}}, "`attention_heads` is 3"),
        ({"policy_kwargs": {"filter_kwargs": {"momentum": 1.0}}}, "`momentum` is 1.0"),
        ({"policy_kwargs": {"filter_kwargs": {"basis_degree": 5}}}, "`filter_kwargs` has `basis_degree`, .*argument `degree`"),
        ({"compile": "cudagraph"}, "cudagraph"),
    ],
)
def test_bad_arguments(make: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_other_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="MultiRobot2D"):
        FlowOpt("FlowPolicy", "Pendulum-v1", device="cpu")


def test_k_is_at_least_one(model: FlowOpt) -> None:
    with pytest.raises(ValueError, match="`k` is 0"):
        model.plan(observe(), k=0)
    with pytest.raises(TypeError, match=r"`k` is 1.5; it must be a whole number"):
        model.plan(observe(), k=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("deadline", [-1, "now", float("nan")])
def test_deadlines_are_times(model: FlowOpt, deadline: Any) -> None:
    with pytest.raises(ValueError, match=r"`deadline_ms` is .*; it must be at least 0 milliseconds, or None"):
        model.plan(observe(), deadline_ms=deadline)


@pytest.mark.parametrize(("name", "value"), [("size", 3.5), ("horizon", 7.0)])
def test_an_environment_with_other_units_is_refused(model: FlowOpt, tmp_path: Path, name: str, value: float) -> None:
    """Observations and actions are in units of its size and horizon: the filter would certify another plan."""
    other = gym.make("sb3_flow/MultiRobot2D-v0", num_robots=(2, MOST_ROBOTS), num_obstacles=2, **{name: value})
    message = f"The `{name}` of this model is .*, but that of the environment is {value}: plans would not be safe"
    with pytest.raises(ValueError, match=message):
        model.set_env(other)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        FlowOpt.load(tmp_path / "model", other, device="cpu")


def test_arguments_without_effect_are_named() -> None:
    with pytest.warns(UserWarning, match="FlowOptPolicy: `net_arch`, `n_critics` have no effect: not used by this policy"):
        FlowOpt("FlowPolicy", scenes(), **{**SMALL_PLANS, "policy_kwargs": {**TINY, "net_arch": [4], "n_critics": 3}})


def test_it_is_one_of_ours() -> None:
    assert "FlowOpt" in sb3_flow.__all__
