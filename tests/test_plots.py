"""Pictures show the model's own numbers: they are read back from what is drawn, and compared with closed forms."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.case import AlgorithmCase, parameters, same_parameters
from gymnasium import spaces
from PIL import Image
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow import FPMD, FQL, QAM, SWFP, StreamingFlow
from sb3_flow.common.data.no_environment import NoEnvironment
from sb3_flow.common.flow import euler
from sb3_flow.plots import (
    ActionHistory,
    caption,
    film,
    plot_action_history,
    plot_flow,
    plot_learning_curves,
    plot_values,
    plot_velocity,
    sliders,
    trace_flow,
    write_gif,
)
from sb3_flow.plots.curves import read_evaluations
from sb3_flow.plots.plane import make_plane
from sb3_flow.plots.trace import sample
from sb3_flow.tables.report import interval

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 0}
OBSERVATION = np.array([0.3, -0.2], np.float32)


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    pyplot.close("all")


def env(n_actions: int) -> gym.Env:
    return NoEnvironment(spaces.Box(-1, 1, (2,)), spaces.Box(-2, 2, (n_actions,)))


def fql(n_actions: int, **kwargs: Any) -> FQL:
    return FQL("FlowPolicy", env(n_actions), **{**SMALL, **kwargs})


def noise(n: int, dim: int) -> th.Tensor:
    return th.randn(n, dim, generator=th.Generator().manual_seed(0))


def observations(n: int) -> th.Tensor:
    return th.as_tensor(OBSERVATION).expand(n, -1)


# Flows.


def test_a_trace_is_the_flow_of_the_policy() -> None:
    model = fql(2)
    trace = trace_flow(model, OBSERVATION, n=7, sampler="bc_flow")
    velocity = model.policy.velocity(model.policy.bc_flow, observations(7))
    x = noise(7, 2)
    with th.no_grad():
        for k in range(11):
            np.testing.assert_allclose(trace.points[k], x, atol=1e-6)
            x = x + velocity(x, th.full((7, 1), k / 10)) / 10
        np.testing.assert_allclose(
            trace.points[-1].clip(-1, 1), model.policy.act_bc_flow(observations(7), noise(7, 2)), atol=1e-6
        )
        places, times = noise(5, 2), th.linspace(0, 1, 5)[:, None]
        expected = model.policy.velocity(model.policy.bc_flow, observations(5))(places, times)
        assert th.equal(trace.velocity(places, times), expected)
    np.testing.assert_allclose(trace.times, np.linspace(0, 1, 11), atol=1e-6)


def test_the_first_sampler_with_a_flow_is_drawn() -> None:
    model = fql(2)
    assert model.policy.sampler == "one_step" and trace_flow(model, OBSERVATION).sampler == "bc_flow"
    assert trace_flow(QAM("FlowPolicy", env(2), **SMALL), OBSERVATION).sampler == "flow"
    # The actions of the cascade are not the end of the base's flow.
    assert trace_flow(SWFP("FlowPolicy", env(2), dataset=data(2), **SMALL), OBSERVATION).sampler in ("base", "cascade")


def data(n_actions: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.uniform(-1, 1, (40, 2)),
        "actions": rng.uniform(-2, 2, (40, n_actions)),
        "rewards": rng.normal(size=40),
        "terminations": np.ones(40),
    }


def test_samplers_without_a_flow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'one_step' of FQLPolicy .* choose one of bc_flow"):
        plot_flow(fql(2), OBSERVATION, sampler="one_step")
    with pytest.raises(ValueError, match="no sampler 'flow'; choose one of one_step, bc_flow"):
        plot_flow(fql(2), OBSERVATION, sampler="flow")
    model = FPMD("FlowPolicy", env(2), flow="mean", **SMALL)
    with pytest.raises(ValueError, match="No sampler of FPMDPolicy"):
        plot_flow(model, OBSERVATION)
    edited = QAM("FlowPolicy", env(2), edit_scale=0.5, **SMALL)
    assert trace_flow(edited, OBSERVATION).sampler == "flow"
    with pytest.raises(ValueError, match=r"'edit' of QAMPolicy .* choose one of flow, bc_flow"):
        plot_flow(edited, OBSERVATION, sampler="edit")


def test_other_models_and_batches_are_refused() -> None:
    with pytest.raises(TypeError, match="SAC has no flow policy"):
        plot_flow(SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="Expected one observation"):
        plot_flow(fql(2), OBSERVATION[None])


def test_a_streaming_flow_is_its_plan() -> None:
    model = StreamingFlow("FlowPolicy", env(2), horizon_length=4, n_action_steps=4, n_obs_steps=1, **SMALL)
    trace = trace_flow(model, OBSERVATION, n=3)
    with th.no_grad():
        starts = model.policy.start(observations(3))
        planned = model.policy.plan_actions(observations(3), noise(3, 2)[:, None], starts, th.ones(3, dtype=th.bool))
    np.testing.assert_allclose(trace.points[1:].transpose(1, 0, 2), planned, atol=1e-6)
    x, t = noise(5, 2), th.full((5, 1), 0.3)
    with th.no_grad():
        context = model.policy.context(model.policy.average, observations(5))
        np.testing.assert_allclose(trace.velocity(x, t), model.policy.field(model.policy.average, context)(x, t), atol=1e-6)


def test_lines_and_arrows_of_two_dimensions() -> None:
    model = fql(2)
    trace = trace_flow(model, OBSERVATION, n=9)
    axes = plot_flow(model, OBSERVATION, n=9, time=0.25)
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(np.stack(line.get_data(), axis=1), trace.points[:, i], atol=1e-6)
    assert len(axes.lines) == 9
    quiver = next(part for part in axes.collections if isinstance(part, matplotlib.quiver.Quiver))
    places = th.as_tensor(np.stack([quiver.X, quiver.Y], axis=1), dtype=th.float32)
    velocity = trace.velocity(places, th.full((len(places), 1), 0.25))
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V], axis=1), velocity, atol=1e-5)
    assert f"{velocity.norm(dim=1).max():.2g}" in quiver.get_label()
    clouds = {part.get_label(): part.get_offsets() for part in axes.collections}
    np.testing.assert_allclose(clouds["noise"], trace.points[0], atol=1e-6)
    np.testing.assert_allclose(clouds["actions"], trace.points[-1], atol=1e-6)
    assert axes.get_xlabel() == "action 1" and axes.get_title() == "FQL, sampler bc_flow"
    assert {text.get_text() for text in axes.get_legend().texts} >= {"noise", "actions", "paths of the policy"}


def test_lines_and_arrows_of_one_dimension() -> None:
    model = fql(1)
    axes = plot_flow(model, OBSERVATION, n=5)
    trace = trace_flow(model, OBSERVATION, n=5)
    for i in range(5):
        times, places = axes.lines[i].get_data()
        np.testing.assert_allclose(times, trace.times)
        np.testing.assert_allclose(places, trace.points[:, i, 0], atol=1e-6)
    quiver = next(part for part in axes.collections if isinstance(part, matplotlib.quiver.Quiver))
    times, places = (th.as_tensor(part, dtype=th.float32)[:, None] for part in (quiver.X, quiver.Y))
    np.testing.assert_allclose(quiver.V / quiver.U, trace.velocity(places, times)[:, 0], rtol=1e-3, atol=1e-4)


def test_the_field_of_a_closed_form() -> None:
    """A Gaussian N(m, s^2): v = m + (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2) (x - t m)."""
    mean, std = 0.5, 0.2

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        return mean + (t * std**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * std**2) * (x - t * mean)

    quiver = plot_velocity(velocity, limit=1.5).collections[0]
    expected = velocity(th.as_tensor(quiver.Y), th.as_tensor(quiver.X)).numpy()
    np.testing.assert_allclose(quiver.V / quiver.U, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(quiver.Y).max() == 1.5
    with pytest.raises(ValueError, match=r"`time` is 1.5"):
        plot_velocity(velocity, time=1.5)


# Planes.


def test_planes() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 4)) * [0.1, 3.0, 0.2, 1.0] + 5
    plane = make_plane(points, "pca")
    # The second and the fourth dimension vary most.
    np.testing.assert_allclose(np.abs(plane.directions[:, [1, 3]]), np.eye(2), atol=0.05)
    share = plane.project(points).var(axis=0)[0] / points.var(axis=0).sum()
    assert plane.labels[0] == f"component 1 of 4 ({share:.0%} of the variance)" and share == pytest.approx(0.9, abs=0.03)
    coordinates = plane.project(points)
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(plane.project(plane.lift(coordinates)), coordinates, atol=1e-9)
    first = make_plane(points)
    np.testing.assert_allclose(first.project(points), points[:, :2], atol=1e-9)
    np.testing.assert_allclose(first.lift(np.array([1.0, 2.0])), [1, 2, *points.mean(axis=0)[2:]], atol=1e-9)
    assert first.labels == ("action 1 of 4", "action 2 of 4")
    np.testing.assert_allclose(make_plane(points, [3, 0]).project(points), points[:, [3, 0]], atol=1e-9)
    np.testing.assert_array_equal(make_plane(points[:, :2]).project(points[:, :2]), points[:, :2])
    for wrong in ("second", [0], [1, 1], [0, 4]):
        with pytest.raises(ValueError, match="`projection`"):
            make_plane(points, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("projection", ["first", "pca", [2, 1]])
def test_more_than_two_dimensions_are_projected(projection: Any) -> None:
    model = fql(3)
    trace = trace_flow(model, OBSERVATION, n=9)
    plane = make_plane(trace.points[-1], projection)
    axes = plot_flow(model, OBSERVATION, n=9, projection=projection)
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(np.stack(line.get_data(), axis=1), plane.project(trace.points)[:, i], atol=1e-6)
    quiver = next(part for part in axes.collections if isinstance(part, matplotlib.quiver.Quiver))
    places = th.as_tensor(plane.lift(np.stack([quiver.X, quiver.Y], axis=1)), dtype=th.float32)
    velocity = trace.velocity(places, th.full((len(places), 1), 0.5)).numpy() @ plane.directions.T
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V], axis=1), velocity, atol=1e-5)
    assert "of 3" in axes.get_xlabel()


# Values.


def test_values_of_one_dimension() -> None:
    model = fql(1)
    axes = plot_values(model, OBSERVATION, n=20)
    places, values = axes.lines[0].get_data()
    with th.no_grad():
        actions = th.as_tensor(places, dtype=th.float32)[:, None]
        q = model.policy.q_values(model.policy.critic, observations(len(places)), actions).mean(dim=0)
        one_step = model.policy.act_one_step(observations(20), noise(20, 1))
        of_samples = model.policy.q_values(model.policy.critic, observations(20), one_step).mean(dim=0)
    np.testing.assert_allclose(values, q, atol=1e-6)
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points, np.stack([one_step[:, 0], of_samples], axis=1), atol=1e-6)
    assert f"mean value {of_samples.mean():.2f}" in axes.get_title()


def test_values_of_two_dimensions() -> None:
    """A linear critic has parallel contours: Q = 2 a_1 - a_2."""
    model = fql(2)
    model.policy.score = lambda observations, actions: 2 * actions[:, 0] - actions[:, 1]  # type: ignore[method-assign]
    axes = plot_values(model, OBSERVATION, n=20)
    lines = axes.collections[1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if len(path.vertices):
            np.testing.assert_allclose(2 * path.vertices[:, 0] - path.vertices[:, 1], level, atol=1e-5)
    np.testing.assert_allclose(axes.collections[2].get_offsets(), sample(model, OBSERVATION, 20), atol=1e-6)


def test_models_without_critics_are_refused() -> None:
    model = StreamingFlow("FlowPolicy", env(2), horizon_length=4, n_obs_steps=1, **SMALL)
    with pytest.raises(ValueError, match="StreamingFlowPolicy has no critics"):
        plot_values(model, OBSERVATION)
    assert not pyplot.get_fignums()


def test_samples_are_those_of_best_of_n() -> None:
    model = fql(2, policy_kwargs={"net_arch": [16], "best_of_n": 4})
    with th.no_grad():
        expected = model.policy.act_best(observations(6), noise(6, 8).view(6, 4, 2))
    np.testing.assert_array_equal(sample(model, OBSERVATION, 6), expected)


@pytest.mark.slow
def test_every_algorithm_can_be_drawn_or_says_why(algorithm: AlgorithmCase) -> None:
    model = algorithm.fresh()
    observation = algorithm.environment().reset(seed=0)[0]
    for draw in (plot_flow, plot_values):
        try:
            draw(model, observation, n=5)
        except ValueError as error:
            assert model.policy.__class__.__name__ in str(error)


# History.


def test_a_history_records_and_changes_nothing() -> None:
    def trained(callback: Any) -> FQL:
        return fql(1, dataset=data(1), offline_log_interval=10).learn(10, callback=callback)

    history = ActionHistory(OBSERVATION, every=4, n=50)
    model = trained(history)
    assert same_parameters(parameters(model), parameters(trained(None)))
    assert history.timesteps == [0, 4, 8, 10]
    np.testing.assert_array_equal(history.actions[-1], sample(model, OBSERVATION, 50))
    np.testing.assert_array_equal(history.actions[0], sample(fql(1, dataset=data(1)), OBSERVATION, 50))
    axes = plot_action_history(history)
    mesh = axes.collections[0]
    densities = mesh.get_array().reshape(60, 4)
    edges = mesh.get_coordinates()[:, 0, 1]
    for column, actions in zip(densities.T, history.actions, strict=True):
        np.testing.assert_allclose(column, np.histogram(actions[:, 0], edges, density=True)[0])
        assert column @ np.diff(edges) == pytest.approx(1)
    np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], [0, 4, 8, 10, 12])


def test_wrong_histories_are_refused() -> None:
    with pytest.raises(ValueError, match="`every` is 0"):
        ActionHistory(OBSERVATION, every=0)
    with pytest.raises(ValueError, match="history is empty"):
        plot_action_history(ActionHistory(OBSERVATION))
    history = ActionHistory(OBSERVATION)
    history.timesteps, history.actions = [0], [np.zeros((3, 1))]
    with pytest.raises(ValueError, match="`component` is 1"):
        plot_action_history(history, component=1)


# Learning curves.


def test_learning_curves_have_the_intervals_of_the_report(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 3, 4))  # seeds, evaluations, episodes
    for seed in range(5):
        np.savez(tmp_path / f"{seed}.npz", timesteps=[10, 20, 30], results=scores[seed])
    axes = plot_learning_curves({"FQL": [tmp_path / f"{seed}.npz" for seed in range(5)], "BC": ([10, 20, 30], [[1, 2, 3]])})
    expected = np.array([interval(scores[:, k].mean(axis=1)[:, None]) for k in range(3)])
    np.testing.assert_array_equal(axes.lines[0].get_data(), [[10, 20, 30], expected[:, 0]])
    band = axes.collections[0].get_paths()[0].vertices
    for k, time in enumerate((10, 20, 30)):
        assert set(np.round(band[band[:, 0] == time][:, 1], 9)) == set(np.round(expected[k, 1:], 9))
    np.testing.assert_array_equal(axes.lines[1].get_data(), [[10, 20, 30], [1, 2, 3]])
    assert len(axes.collections) == 1  # no interval for one seed
    assert axes.get_ylabel() == "return"
    assert axes.lines[0].get_color() != axes.lines[1].get_color()


def test_wrong_curves_are_refused(tmp_path: Path) -> None:
    for name, times in (("a", [1, 2]), ("b", [1, 3])):
        np.savez(tmp_path / f"{name}.npz", timesteps=times, results=np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"b.npz was evaluated at other timesteps"):
        plot_learning_curves({"FQL": [tmp_path / "a.npz", tmp_path / "b.npz"]})
    with pytest.raises(ValueError, match=r"'FQL' has .* timesteps"):
        plot_learning_curves({"FQL": ([1, 2], np.zeros((3, 4)))})
    for files in ("a.npz", []):
        with pytest.raises(ValueError, match=r"The runs are .*; expected a list with one file, or folder, for each seed"):
            read_evaluations(files)
    np.savez(tmp_path / "c.npz", timesteps=[1, 2], results=np.zeros((2, 1)), successes=np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"c.npz has success rates, and other runs have not; they cannot be compared"):
        read_evaluations([tmp_path / "a.npz", tmp_path / "c.npz"])


# Films.


def test_a_film_has_the_frames_of_the_environment(tmp_path: Path) -> None:
    env = gym.make("sb3_flow/TwoGoals-v0", render_mode="rgb_array")
    model = FQL("FlowPolicy", env, **SMALL)
    path = film(model, env, tmp_path / "film.gif", episodes=2, seed=3, deterministic=True, rest=2.0, rate=10)
    expected = []
    for seed in (3, 4):
        observation, over = env.reset(seed=seed)[0], False
        expected.append(env.render())
        while not over:
            observation, _, terminated, truncated, _ = env.step(model.predict(observation, deterministic=True)[0])
            expected.append(env.render())
            over = terminated or truncated
    with Image.open(path) as gif:
        assert gif.n_frames == len(expected)
        for k, frame in enumerate(expected):
            gif.seek(k)
            np.testing.assert_array_equal(np.asarray(gif.convert("RGB"))[:240], frame)
        assert gif.info["duration"] == 2100


def test_a_film_of_a_model_with_normalization(tmp_path: Path) -> None:
    """It sees normalized observations, as in training; without the statistics there is a warning."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    small: dict[str, Any] = {**SMALL, "batch_size": 8, "learning_starts": 5}
    model = FQL("FlowPolicy", env, **small).learn(10)
    seen, shown = [], gym.make("Pendulum-v1", render_mode="rgb_array", max_episode_steps=3)
    predict = model.predict

    def recorded(observation: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        seen.append(observation)
        return predict(observation, *args, **kwargs)

    model.predict = recorded  # type: ignore[method-assign]
    film(model, shown, tmp_path / "film.gif", seed=4)
    np.testing.assert_array_equal(seen[0], env.normalize_obs(shown.reset(seed=4)[0][None]))
    del model.predict  # type: ignore[method-assign]
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="has no environment with its statistics"):
        film(FQL.load(tmp_path / "model"), shown, tmp_path / "film.gif")


def test_environments_that_render_images_without_a_mode_are_filmed(tmp_path: Path) -> None:
    """OGBench's have no ``render_mode``."""
    env = gym.make("sb3_flow/TwoGoals-v0", render_mode="rgb_array").unwrapped
    model = FQL("FlowPolicy", env, **SMALL)
    expected = film(model, env, tmp_path / "expected.gif", deterministic=True).read_bytes()
    env.render_mode, render = None, env.render

    def without_a_mode() -> Any:
        env.render_mode = "rgb_array"
        picture, env.render_mode = render(), None
        return picture

    env.render = without_a_mode  # type: ignore[method-assign]
    assert film(model, env, tmp_path / "film.gif", deterministic=True).read_bytes() == expected


def test_a_caption_explains_the_colors() -> None:
    frame = np.full((20, 200, 3), 7, np.uint8)
    captioned = caption(frame, "a text", {"#ff0000": "robots", "#00ff00": "goals"})
    np.testing.assert_array_equal(captioned[:20], frame)
    assert captioned.shape == (20 + 3 * 16 + 4, 200, 3)
    red, green = ((captioned == color).all(axis=2).sum() for color in ([255, 0, 0], [0, 255, 0]))
    assert red == green == 11 * 11


def test_wrong_films_are_refused(tmp_path: Path) -> None:
    env = gym.make("sb3_flow/TwoGoals-v0")
    with pytest.raises(ValueError, match=r"`env\.render_mode` is None"):
        film(FQL("FlowPolicy", env, **SMALL), env, tmp_path / "film.gif")
    env = gym.make("Pendulum-v1", render_mode="human")
    with pytest.raises(ValueError, match=r"`env\.render_mode` is 'human'"):
        film(FQL("FlowPolicy", "Pendulum-v1", **SMALL), env, tmp_path / "film.gif")
    with pytest.raises(ValueError, match="no frames"):
        write_gif([], tmp_path / "film.gif", 0.1)
    for durations in ([0.1], [0.1, -1.0], 0.0):
        with pytest.raises(ValueError, match="`durations` for 2 frames; expected one above 0 for each"):
            write_gif([np.zeros((4, 4, 3), np.uint8)] * 2, tmp_path / "film.gif", durations)
    shown = gym.make("sb3_flow/TwoGoals-v0", render_mode="rgb_array")
    wrong = [("rate", 0.0), ("rate", 60.0), ("rate", float("nan")), ("rest", -1.0), ("rest", float("nan"))]
    for name, value in wrong:
        with pytest.raises(ValueError, match=f"`{name}` is {value}; it must be"):
            film(FQL("FlowPolicy", env, **SMALL), shown, tmp_path / "film.gif", **{name: value})


def test_the_flow_of_data_ends_at_the_data() -> None:
    """With the exact field of a point, every path ends there."""
    model = fql(2)
    target = th.tensor([0.5, -0.5])
    model.policy.velocity = lambda network, observations, copies=1: lambda x, t: (target - x) / (1 - t)  # type: ignore[method-assign]
    trace = trace_flow(model, OBSERVATION, n=4, sampler="bc_flow")
    np.testing.assert_allclose(trace.points[-1], target.expand(4, -1), atol=1e-5)
    np.testing.assert_allclose(euler(trace.velocity, noise(4, 2), 10), trace.points[-1], atol=1e-5)


# Sliders.


def test_without_widgets_there_is_a_row_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    drawn = []

    def draw(axes: Any, n: int, width: float) -> None:
        drawn.append((n, width))
        axes.set_title("a title")

    figure = sliders(draw, n=[1, 2, 3, 4, 5, 6, 7], width=[0.1, 0.2, 0.3])
    assert drawn == [(1, 0.2), (3, 0.2), (5, 0.2), (7, 0.2)]
    assert figure.axes[0].get_title() == "a title\nn = 1, width = 0.2"
    with pytest.raises(ValueError, match="one or more choices"):
        sliders(draw)


def test_sliders_draw_what_they_select(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the two functions of ipywidgets that are used."""

    class Widgets:
        SelectionSlider = staticmethod(lambda **options: options)
        interactive = staticmethod(lambda show, **controls: (show, controls))

    monkeypatch.setitem(sys.modules, "ipywidgets", Widgets)
    drawn = []
    show, controls = sliders(lambda axes, **values: drawn.append((axes, values)), n=[1, 2, 3], width=[0.1, 0.2])
    assert controls["n"] == {"options": [1, 2, 3], "value": 2, "continuous_update": False}
    assert controls["width"]["options"] == [0.1, 0.2]
    show(n=3, width=0.1)
    assert drawn[0][1] == {"n": 3, "width": 0.1} and drawn[0][0].figure
    assert not pyplot.get_fignums()  # shown and closed
