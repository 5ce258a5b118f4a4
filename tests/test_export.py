"""Exported policies act as `predict` does, for equal noise; and chunks can be executed in part (`n_action_steps`)."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.case import AlgorithmCase
from conformance.environments import AnySpaces, pendulum, transitions
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

import sb3_flow
from sb3_flow import FQL

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

OnnxPolicy = pytest.importorskip("sb3_flow.deploy").OnnxPolicy

SMALL: dict[str, Any] = {"flow_steps": 2, "policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}


def same_noise(policy: Any, exported: Any) -> None:
    """Let the policy draw its noise as the exported one does, from a generator of the same seed."""
    exported.generator = np.random.default_rng(0)
    generator = np.random.default_rng(0)
    shape = tuple(exported.spec["noise"])

    def noise(n: int, deterministic: bool) -> th.Tensor:
        if deterministic:
            return type(policy)._noise(policy, n, True)
        return th.as_tensor(generator.standard_normal((n, *shape), dtype=np.float32))

    policy._noise = noise


def assert_acts_alike(policy: Any, exported: Any, space: spaces.Space[Any], deterministic: bool) -> None:
    """Three environments over some steps, one of them reset in the middle of a chunk."""
    same_noise(policy, exported)
    space.seed(0)
    states: list[Any] = [None, None]
    for step in range(7):
        samples = [space.sample() for _ in range(3)]
        if isinstance(space, spaces.Dict):
            observations: Any = {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
        else:
            observations = np.stack(samples)
        starts = np.array([step == 0, step in (0, 3), step == 0])
        expected, states[0] = policy.predict(observations, states[0], starts, deterministic=deterministic)
        actions, states[1] = exported.predict(observations, states[1], starts, deterministic=deterministic)
        assert actions.dtype == expected.dtype
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.algorithms("FQL", "StreamingFlow")
def test_the_default_sampler_acts_as_predict_does(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    check_sampler(algorithm, None, tmp_path)


@pytest.mark.nightly
def test_every_sampler_acts_as_predict_does(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    for sampler in algorithm.make(pendulum(), dataset=transitions()).policy.samplers:
        check_sampler(algorithm, sampler, tmp_path)


def check_sampler(algorithm: AlgorithmCase, sampler: str | None, tmp_path: Path) -> None:
    """Export a model, with chunks where the algorithm has these, and compare the actions of some steps."""
    chunks = {"horizon_length": 3, "n_action_steps": 2} if algorithm.online else {}
    model = algorithm.make(pendulum(), dataset=transitions(), **chunks)
    model.export(tmp_path / "policy", sampler)
    exported = OnnxPolicy(tmp_path / "policy.onnx")
    policy = model.policy.with_sampler(sampler or model.policy.sampler)
    assert exported.spec["algorithm"] == algorithm.cls.__name__ and exported.spec["sampler"] == policy.sampler
    for deterministic in (True, False):
        assert_acts_alike(policy, exported, model.observation_space, deterministic)


class Robot(gym.Env[Any, Any]):
    """A dictionary of a vector, an image with channels last, and a discrete part; actions with bounds of their own."""

    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (36, 36, 3), np.uint8),
            "joints": spaces.Box(-5, 5, (4,), np.float64),
            "mode": spaces.Discrete(3),
        }
    )
    action_space = spaces.Box(np.array([[-1.0, 0.0]], np.float32), np.array([[3.0, 10.0]], np.float32))

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [pytest.param("impala", marks=pytest.mark.nightly), "small"])
def test_what_stands_between_environment_and_policy_is_in_the_file(encoder: str, tmp_path: Path) -> None:
    """VecNormalize, image layout, one-hot encoding, scaling of actions, and chunks that are executed in part."""
    env = VecNormalize(VecTransposeImage(DummyVecEnv([Robot])), norm_obs_keys=["joints"], norm_reward=False)
    env.obs_rms["joints"].mean[:] = [1, -2, 3, 0]
    env.obs_rms["joints"].var[:] = [4, 0.5, 1, 9]
    policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"encoder": encoder}}
    model = FQL("FlowPolicy", env, horizon_length=3, n_action_steps=2, **{**SMALL, "policy_kwargs": policy_kwargs})
    model.export(tmp_path / "robot.onnx")
    exported = OnnxPolicy(tmp_path / "robot.onnx")
    assert exported.spec["observations"]["camera"] == {"shape": [36, 36, 3], "dtype": "uint8"}
    policy = model.policy

    class InEnvironment:
        """The policy behind the wrappers of its environment."""

        _noise = staticmethod(policy._noise)

        def predict(self, observations: Any, *args: Any, **kwargs: Any) -> Any:
            policy._noise = self._noise  # type: ignore[method-assign]
            first = {**observations, "camera": np.moveaxis(observations["camera"], -1, 1)}
            normalized = env.normalize_obs(first)
            return policy.predict(normalized, *args, **kwargs)

    assert_acts_alike(InEnvironment(), exported, Robot.observation_space, deterministic=False)


@pytest.mark.slow
@pytest.mark.algorithms("StreamingFlow")
def test_every_sampler_acts_on_images_as_predict_does(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    check_images(algorithm, tmp_path)


@pytest.mark.nightly
def test_every_sampler_of_every_algorithm_acts_on_images_as_predict_does(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    check_images(algorithm, tmp_path)


def check_images(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """For any number of robots: code that fixes the number was traced in another way, which images do not support."""
    rows = [Robot.observation_space.sample() for _ in range(20)]
    data = {
        "observations": {key: np.stack([row[key] for row in rows]) for key in rows[0]},
        "actions": np.stack([Robot.action_space.sample() for _ in rows]),
        "rewards": np.zeros(20),
        "truncations": np.arange(20) == 19,
    }
    policy_kwargs = {**algorithm.policy_kwargs, "features_extractor_kwargs": {"encoder": "small"}}
    model = algorithm.make(Robot(), dataset=data, policy_kwargs=policy_kwargs)
    for sampler in model.policy.samplers:
        model.export(tmp_path / "robot.onnx", sampler)
        policy = model.policy.with_sampler(sampler)
        assert_acts_alike(policy, OnnxPolicy(tmp_path / "robot.onnx"), Robot.observation_space, deterministic=False)


@pytest.mark.slow
def test_evaluate_policy_takes_an_exported_policy(tmp_path: Path) -> None:
    model = FQL("FlowPolicy", pendulum(), **SMALL)
    model.policy = model.policy.with_sampler("one_step", best_of_n=4)
    model.export(tmp_path / "policy.onnx")
    scores = [
        evaluate_policy(policy, pendulum(), n_eval_episodes=1, deterministic=True, warn=False)[0]
        for policy in (model, OnnxPolicy(tmp_path / "policy.onnx"))
        if pendulum().reset(seed=0)
    ]
    assert len(scores) == 2


@pytest.mark.slow
def test_the_runner_needs_no_torch(pendulum_file: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['stable_baselines3'] = sys.modules['gymnasium'] = None\n"
        "import numpy as np\nfrom sb3_flow.deploy import OnnxPolicy\n"
        f"actions, _ = OnnxPolicy({str(pendulum_file)!r}).predict(np.zeros(3, np.float32))\n"
        "assert actions.shape == (1,)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_runner_is_short() -> None:
    """At most 60 lines, without blank ones: it can be read before it is copied to a robot."""
    file = Path(__file__).parents[1] / "sb3_flow" / "deploy" / "onnx_policy.py"
    assert sum(bool(line.strip()) for line in file.read_text("utf-8").splitlines()) <= 60


@pytest.mark.slow
def test_another_onnx_file_is_refused(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "other", values[:1], values[1:])
    file = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), file)
    with pytest.raises(ValueError, match=r"other.onnx was not written by `model.export` of sb3_flow"):
        OnnxPolicy(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(4, np.float32), r"'observation' is float32 \(4,\); expected finite float32 \(3,\), or a batch"),
        (np.array([0.0, np.nan, 0.0], np.float32), r"'observation' is float32 \(3,\); expected finite float32"),
        (np.zeros(3, np.complex64), "'observation' is complex64"),
        (np.full(3, 1e300), "'observation' is float64 .* expected finite float32"),
        (np.zeros((0, 3), np.float32), r"'observation' is float32 \(0, 3\)"),
        ((np.zeros(3, np.float32), {}), "The observation is a tuple, as `reset` returns it"),
        ({"joints": np.zeros(3)}, r"The observation has \['joints'\]; expected \['observation'\]"),
    ],
)
def test_observations_that_do_not_fit(observation: Any, message: str, pendulum_file: Path) -> None:
    with pytest.raises(ValueError, match=message):
        OnnxPolicy(pendulum_file).predict(observation)


@pytest.mark.slow
@pytest.mark.parametrize("state", [True, 3, "two", "model", "longer"])
def test_states_that_do_not_fit(state: Any, pendulum_file: Path) -> None:
    """Also those of a policy of this package, and of a file with other chunks."""
    policy = OnnxPolicy(pendulum_file)
    if state == "two":
        state = policy.predict(np.zeros((2, 3), np.float32))[1]
    elif state == "model":
        state = FQL("FlowPolicy", pendulum(), horizon_length=2, **SMALL).predict(np.zeros(3, np.float32))[1]
    elif state == "longer":
        actions, *rest = policy.predict(np.zeros(3, np.float32))[1]
        state = (np.repeat(actions, 2, axis=1), *rest)
    with pytest.raises(ValueError, match="`state` must be None, or what `predict` returned before for as many observations"):
        policy.predict(np.zeros(3, np.float32), state)


#: Parts of all kinds, and a valid observation.
PARTS = spaces.Dict(
    camera=spaces.Box(0, 1, (1, 16, 16)),
    keys=spaces.MultiBinary(2),
    lamps=spaces.MultiDiscrete([2, 3], start=[1, 0]),
    left=spaces.Box(-1, 1, (2,)),
    mode=spaces.Discrete(4, start=1),
    steps=spaces.Box(-9, 9, (2,), np.int32),
)
VALID: dict[str, Any] = {
    "camera": np.full((1, 16, 16), 0.5, np.float32),
    "keys": np.array([0, 1], np.int8),
    "lamps": np.array([2, 2]),
    "left": np.zeros(2),
    "mode": np.int64(4),
    "steps": np.array([1, 2]),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A model of these parts, and its exported policy."""
    path = tmp_path_factory.mktemp("parts") / "policy.onnx"
    policy_kwargs = {"net_arch": [8], "normalize_images": False, "features_extractor_kwargs": {"encoder": "small"}}
    env = AnySpaces(PARTS, spaces.Box(-1, 1, (1,)))
    model = FQL("FlowPolicy", env, horizon_length=2, **{**SMALL, "policy_kwargs": policy_kwargs})
    model.export(path)
    return [model, OnnxPolicy(path)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": np.int64(0)}, "'mode',? (has the value 0|is int.* from .* to below .*)"),
        ({"mode": np.int64(5)}, "'mode',? (has the value 5|is int.* from .* to below .*)"),
        ({"lamps": np.array([1, 3])}, "'lamps',? (has the value 3|is int.* from .* to below .*)"),
        ({"keys": np.array([2, 0])}, "'keys',? (has the value 2|is int.* from .* to below .*)"),
        ({"camera": np.full((1, 16, 16), 200, np.uint8)}, "is an image of bytes|is uint8 .* from -1 to below 2"),
        ({"left": np.zeros((2, 2))}, r"The parts .* expected as many of each|'left' is float64 \(2, 2\)"),
    ],
)
def test_values_that_do_not_fit(both: list[Any], wrong: dict[str, Any], message: str) -> None:
    """
    One-hot encoding in a graph has no error for values outside of the space: the actions would be those of zeros. An image of
    scaled floats is no image of bytes. One part for more robots than the others is an error, too.
    """
    for policy in both:
        policy.predict(VALID)
        with pytest.raises(ValueError, match=message):
            policy.predict({**VALID, **wrong})


@pytest.mark.slow
def test_a_whole_number_that_its_type_cannot_hold(both: list[Any]) -> None:
    """It would become another one."""
    with pytest.raises(ValueError, match=r"is int64 .*; expected finite int32"):
        both[1].predict({**VALID, "steps": np.array([1, 2**33])})


@pytest.mark.slow
def test_an_array_for_a_dictionary(both: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"is of the type ndarray; expected a dictionary with the parts \['camera', 'keys',"):
        both[0].predict(np.zeros(2))


@pytest.mark.slow
def test_starts_of_episodes_as_numbers(pendulum_file: Path) -> None:
    """Numbers would be taken for indices of robots: both would get a new plan, and one of them execute its second action."""
    policy, observations = OnnxPolicy(pendulum_file), np.zeros((2, 3), np.float32)
    state = policy.predict(observations, deterministic=True)[1]
    later = np.array([[1, 1, 1], [2, 2, 2]], np.float32)
    starts: Any
    for starts in ([1, 0], np.array([0.0, 1.0]), True, np.True_):
        expected = policy.predict(later, state, np.broadcast_to(np.array(starts, bool), 2), deterministic=True)[1]
        found = policy.predict(later, state, starts, deterministic=True)[1]
        assert all(np.array_equal(left, right) for left, right in zip(found[:3], expected[:3], strict=True))
    with pytest.raises(ValueError, match="for as many observations and starts"):
        policy.predict(observations, state, [True, False, True])
    with pytest.raises(ValueError, match="for as many observations and starts"):
        policy.predict(observations[:1], episode_start=[True, False, True])


@pytest.mark.slow
def test_actions_that_are_not_finite(tmp_path: Path) -> None:
    model = FQL("FlowPolicy", pendulum(), **SMALL)
    for parameter in model.policy.parameters():
        parameter.data *= 1e30
    model.export(tmp_path / "policy.onnx")
    with pytest.raises(
        ValueError, match="Actions are not finite: the parameters are invalid, or the observation is too large"
    ):
        OnnxPolicy(tmp_path / "policy.onnx").predict(np.full(3, 1e30))


@pytest.fixture(scope="module")
def pendulum_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "policy.onnx"
    FQL("FlowPolicy", pendulum(), horizon_length=3, **SMALL).export(path)
    return path


@pytest.mark.slow
def test_inputs_that_a_policy_does_not_use_are_not_in_the_graph(pendulum_file: Path) -> None:
    assert OnnxPolicy(pendulum_file).names == {"observation", "noise"}


@pytest.mark.slow
def test_a_file_has_no_paths_of_the_machine_that_wrote_it(pendulum_file: Path) -> None:
    """As in the exporter's traces of each operation, which would also be most of the size of the file."""
    content = pendulum_file.read_bytes()
    assert b"site-packages" not in content and str(Path(sb3_flow.__file__).parent).encode() not in content
    parameters = sum(part.ByteSize() for part in onnx.load(pendulum_file).graph.initializer)
    assert b"stack_trace" not in content and len(content) < parameters + 20_000


@pytest.mark.slow
def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no sampler 'teacher'; choose one of one_step, bc_flow"):
        FQL("FlowPolicy", pendulum(), **SMALL).export(tmp_path / "policy.onnx", "teacher")
    assert not list(tmp_path.iterdir())


class Inverse(BaseFeaturesExtractor):
    """Features with an operator that ONNX does not have."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 3)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        matrices = observations[:, :, None] * observations[:, None] + th.eye(3)
        return th.linalg.cholesky(matrices)[:, 0]


@pytest.mark.slow
def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    options = {**SMALL, "policy_kwargs": {"net_arch": [8], "features_extractor_class": Inverse}}
    with pytest.raises(ValueError, match=r"sampler 'one_step' cannot be exported to ONNX.*cholesky"):
        FQL("FlowPolicy", pendulum(), **options).export(tmp_path / "policy.onnx")


class Inverted(BaseFeaturesExtractor):
    """Features that are finite because of a small number."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 3)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return observations / (observations.square() + 1e-12)


@pytest.mark.slow
def test_small_numbers_are_not_rounded_to_zero(tmp_path: Path) -> None:
    """As the exporter's optimization does, so that a division by zero would remain."""
    options = {**SMALL, "policy_kwargs": {"net_arch": [8], "features_extractor_class": Inverted}}
    model = FQL("FlowPolicy", pendulum(), **options)
    model.export(tmp_path / "policy.onnx")
    zeros = np.zeros(3, np.float32)
    actions, _ = OnnxPolicy(tmp_path / "policy.onnx").predict(zeros, deterministic=True)
    np.testing.assert_allclose(actions, model.predict(zeros, deterministic=True)[0], rtol=1e-5, atol=1e-5)


# Chunks that are executed in part.


@pytest.mark.parametrize("n_action_steps", [0, 4, -1])
def test_n_action_steps_out_of_range(n_action_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"`n_action_steps` is {n_action_steps}; it must be from 1 to `horizon_length`, 3"):
        FQL("FlowPolicy", pendulum(), horizon_length=3, n_action_steps=n_action_steps, **SMALL)


def test_a_plan_is_made_after_n_action_steps(tmp_path: Path) -> None:
    """Of a chunk of five actions two are executed, in `predict`, after loading, and in rollouts."""
    model = FQL("FlowPolicy", pendulum(), horizon_length=5, n_action_steps=2, learning_starts=0, **SMALL)
    model.save(tmp_path / "model.zip")
    for policy in (model.policy, FQL.load(tmp_path / "model.zip", device="cpu").policy):
        observations = np.array([[[np.cos(angle), np.sin(angle), 0]] for angle in range(5)], np.float32)
        whole = [policy(th.as_tensor(each), deterministic=True).detach().numpy().reshape(5, 1) for each in observations]
        state, actions = None, []
        for each in observations:
            action, state = policy.predict(each, state, deterministic=True)
            actions.append(action[0])
        expected = [whole[0][0], whole[0][1], whole[2][0], whole[2][1], whole[4][0]]
        np.testing.assert_allclose(np.array(actions), 2 * np.array(expected), rtol=1e-5, atol=1e-6)
    plans = []
    predict = model.policy_class._predict
    try:
        model.policy_class._predict = lambda self, *args: plans.append(1) or predict(self, *args)  # type: ignore
        model.learn(8)
    finally:
        model.policy_class._predict = predict  # type: ignore[method-assign]
    assert len(plans) == 4


@pytest.mark.slow
def test_a_loaded_model_without_its_environment_is_exported_with_the_layout_of_images(tmp_path: Path) -> None:
    """The space of a saved model has the channels first; those of the robot are last."""
    policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"encoder": "small"}}
    FQL("FlowPolicy", Robot(), **{**SMALL, "policy_kwargs": policy_kwargs}).save(tmp_path / "model")
    model = FQL.load(tmp_path / "model")
    assert model.env is None
    model.save(tmp_path / "again")
    model = FQL.load(tmp_path / "again")
    model.export(tmp_path / "robot.onnx")
    exported = OnnxPolicy(tmp_path / "robot.onnx")
    assert exported.spec["observations"]["camera"] == {"shape": [36, 36, 3], "dtype": "uint8"}
    assert_acts_alike(model.policy, exported, Robot.observation_space, False)


@pytest.mark.slow
@pytest.mark.parametrize("norm_obs", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_a_loaded_model_without_its_statistics_warns(norm_obs: bool, tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([pendulum]), norm_obs=norm_obs)
    FQL("FlowPolicy", env, **SMALL).save(tmp_path / "model")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FQL.load(tmp_path / "model").export(tmp_path / "policy.onnx")
        FQL.load(tmp_path / "model", env=env).export(tmp_path / "whole.onnx")
    found = [str(each.message) for each in caught if "VecNormalize" in str(each.message)]
    assert len(found) == norm_obs
    assert all("The exported policy expects normalized observations" in each for each in found)


@pytest.mark.slow
def test_a_model_from_data_alone_is_exported_with_the_wrappers_of_its_environment(tmp_path: Path) -> None:
    """Its environment is wrapped to have the spaces of the data; ``VecNormalize`` is inside of that wrapper."""
    with pytest.warns(UserWarning, match="There is no environment"):
        model = FQL("FlowPolicy", dataset=transitions(), **SMALL)
    env = VecNormalize(DummyVecEnv([pendulum]), norm_reward=False)
    env.obs_rms.mean[:], env.obs_rms.var[:] = 1.0, 4.0
    model.set_env(env)
    model.export(tmp_path / "policy.onnx")
    observations = np.array([[0.3, -0.4, 2.0]], np.float32)
    expected = model.predict(env.normalize_obs(observations), deterministic=True)[0]
    actions = OnnxPolicy(tmp_path / "policy.onnx").predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


def test_a_network_says_how_to_evaluate_it() -> None:
    policy = FQL("FlowPolicy", pendulum(), **SMALL).policy
    for network in (policy.critic, policy.actor, policy.bc_flow):
        with pytest.raises(NotImplementedError, match=r"`policy.q_values\(network, observations, actions\)` for critics"):
            network(th.zeros(1, 3))
