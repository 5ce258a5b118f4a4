"""Values as plain data: they come back as they were, and what else a file may hold is refused."""

import json
import math
import pathlib
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

from sb3_flow import FQL
from sb3_flow.common.checkpoints.plain import NotPlain, from_plain, to_plain
from sb3_flow.common.schedules import InTurn, LinearToZero, WarmUpCosine

VALUES: list[Any] = [
    *(None, True, 1, -(2**100), 1.5, -0.0, 1e-320, math.nan, math.inf, -math.inf, complex(1, math.nan), "ä\udc80", b"\0\xff"),
    *([1, [2]], (1, (2.5, None)), {1, 2}, frozenset("ab"), deque([{"r": 1.0}], maxlen=3), Counter("aab")),
    *({"a": (1,)}, {1: "x", (2, "b"): None}, {":tuple": [1]}, defaultdict(list, {1: [2]}), pathlib.Path("a/b")),
    *(np.float32(0.1), np.int8(-3), np.bool_(True), np.str_("abc"), np.datetime64("2026-01-01"), np.float64(math.nan)),
    *(np.arange(6.0).reshape(2, 3)[:, ::2], np.zeros((0, 3), np.uint8), np.array(5), np.array(["a", "bc"]), np.array([-0.0])),
    *(np.float32, np.dtype(">i4"), th.float16, nn.ReLU, th.optim.AdamW, NatureCNN, FQL.policy_aliases["FlowPolicy"]),
    *(TrainFreq(3, TrainFrequencyUnit.EPISODE), TrainFrequencyUnit.STEP),
]
OBJECTS: list[Any] = [
    *(ConstantSchedule(0.1), FloatSchedule(LinearSchedule(1.0, 0.0, 0.5)), LinearToZero(3)),
    InTurn(WarmUpCosine(FloatSchedule(2.0), 0.1), [0.5, 0.5]),
    NormalActionNoise(np.zeros(2), np.ones(2)),
    VectorizedActionNoise(OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2), initial_noise=np.full(2, 0.3)), 2),
]
BOX = spaces.Box(np.array([-np.inf, -1], np.float32), np.array([np.inf, 0.1], np.float32))
SPACES: list[spaces.Space[Any]] = [
    *(BOX, spaces.Box(0, 255, (2, 2, 3), np.uint8), spaces.Box(-1, 1, (2,), np.float64), spaces.Discrete(3, start=-2)),
    *(spaces.MultiDiscrete([2, 3], start=[1, 0]), spaces.MultiBinary(4), spaces.MultiBinary((2, 3))),
    *(spaces.Text(5, min_length=2, charset="cba"), spaces.Tuple((BOX, spaces.Discrete(2)))),
    spaces.Dict(OrderedDict(z=BOX, a=spaces.Dict({"b": spaces.MultiBinary(2)}))),
    *(spaces.Sequence(BOX, stack=True), spaces.Graph(BOX, spaces.Discrete(2)), spaces.Graph(BOX, None)),
    spaces.OneOf([spaces.Discrete(2), BOX]),
]


def there_and_back(value: Any, inline: bool = True) -> Any:
    """Through JSON as the standard has it, without NaN, and arrays within it or beside it."""
    arrays: list[np.ndarray] | None = None if inline else []
    text = json.dumps(to_plain(value, arrays=arrays), allow_nan=False)
    return from_plain(json.loads(text), arrays=arrays)


def assert_same(one: Any, other: Any) -> None:
    """Of the same type and the same bits, at any depth."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    elif isinstance(one, th.Tensor):
        assert_same(one.numpy(), other.numpy())
    elif isinstance(one, float | complex):
        assert repr(one) == repr(other)
    elif isinstance(one, dict):
        assert_same(list(one.items()), list(other.items()))
    elif isinstance(one, list | tuple | deque):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
        if isinstance(one, deque):
            assert one.maxlen == other.maxlen
    else:
        assert one == other


@pytest.mark.parametrize("inline", [True, False])
def test_values_come_back(inline: bool) -> None:
    for value in VALUES:
        assert_same(value, there_and_back(value, inline))
    for tensor in (th.arange(3), th.tensor([1.5], dtype=th.float16), th.tensor(True)):
        assert_same(tensor, there_and_back(tensor, inline))


def test_schedules_and_noise_come_back() -> None:
    for value in OBJECTS:
        back = there_and_back(value)
        if callable(getattr(value, "reset", None)):
            value.noise_prev = back.noise_prev = np.full(2, 0.25)
            np.random.seed(0)
            first = value()
            np.random.seed(0)
            assert_same(first, back())
        else:
            assert [back(left) for left in np.linspace(0, 1, 9)] == [value(left) for left in np.linspace(0, 1, 9)]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_spaces_come_back(space: spaces.Space[Any]) -> None:
    """With the state of their generators: they go on drawing the same samples."""
    space.seed(3)
    space.sample()
    back = there_and_back(space)
    assert back == space and back.dtype == space.dtype
    assert str(back.sample()) == str(space.sample())
    if isinstance(space, spaces.Dict):
        assert list(back.spaces) == list(space.spaces)


def test_rl_zoos_schedule_does_not_need_rl_zoo() -> None:
    schedule = type("SimpleLinearSchedule", (), {"__module__": "rl_zoo3.utils", "initial_value": 3.0})()
    assert there_and_back(schedule)(0.5) == 1.5


class Own(nn.Module):
    """A class of the user."""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (lambda left: left, r"thing \(the function .*<lambda>\)"),
        ({"policy": [1, Own]}, r"thing\['policy'\]\[1\] \(the class .*Own\)"),
        (FloatSchedule(lambda left: left), r"thing\.value_schedule \(the function"),
        (np.array([{}]), "an object of numpy.ndarray"),
        (type("Box", (spaces.Box,), {})(0, 1), "an object of .*Box"),
        (nn.ReLU(), "an object of torch.nn"),
        (print, "the function builtins.print"),
        (math, "an object of builtins.module"),
    ],
)
def test_what_is_not_plain_is_named(value: Any, place: str) -> None:
    with pytest.raises(NotPlain, match=place):
        to_plain(value, name="thing")


def test_known_classes() -> None:
    """A policy of the user's own, which the algorithm that loads it names."""
    data = to_plain(Own, known=[Own])
    assert from_plain(data, known=[Own]) is Own
    with pytest.raises(ValueError, match="Own is not accepted"):
        from_plain(data)


@pytest.mark.parametrize(
    "data",
    [
        *({":class": "os.system"}, {":class": "antigravity.fly"}, {":class": "torch.nn.modules.module.os"}, {":class": 3}),
        *({":class": "torch.nn.modules.module.warnings.warn"}, {":class": "stable_baselines3.common.vec_env.SubprocVecEnv"}),
        *({":class": "torch.nn.init.kaiming_normal_"}, {":class": "torch.nnx.A"}, {":class": "sb3_flow.no_such_module.A"}),
        *({":unknown": 1}, {":tuple": [1], "a": 2}, {":object": ["Popen", {}]}, {":object": [{}, 1]}, {":numpy": "load"}),
        *({":torch": "load"}, {":array": 5}, {":array": ["O", [1], "AAAAAAAAAAA="]}, {":array": ["f4", [7], "AAAA"]}),
        *({":number": ["f4", [1, 2]]}, {":dtype": "O"}, {":float": "1.0"}, {":bytes": "*"}, {":set": [[]]}, {":dict": 1}),
        *({":space": ["Box", {}, None]}, {":space": ["Space", {}, None]}, {":TrainFreq": [1, "year"]}, {":deque": [[], -1]}),
        {":defaultdict": ["eval", []]},
    ],
    ids=str,
)
def test_malformed_data(data: Any) -> None:
    """The error is a ValueError, and nothing outside of the packages is imported."""
    sys.modules.pop("antigravity", None)
    with pytest.raises(ValueError, match="it has a malformed value"):
        from_plain({"a": [data]})
    assert "antigravity" not in sys.modules
