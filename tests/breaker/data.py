"""Bad and odd data: each column with each kind of damage, and things that are no data at all."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from breaker.outcome import Input
from sb3_flow import FQL, StreamingFlow
from sb3_flow.common.data.dataset import OfflineDataset

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [4]}, "batch_size": 4, "device": "cpu"}


def model(dataset: Any, **kwargs: Any) -> FQL:
    return FQL("FlowPolicy", pendulum(), dataset=dataset, **{**SMALL, **kwargs})


def changed(column: str, change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    data: dict[str, Any] = collect(pendulum)
    data[column] = change(data[column])
    return data


def at(row: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(column: np.ndarray) -> np.ndarray:
        column = column.astype(np.float64)
        column[row] = value
        return column

    return change


#: What can happen to any column, and what the message says beside its name.
DAMAGE: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "nan": (at(3, np.nan), "row 3 .*nan"),
    "infinity": (at(4, np.inf), "row 4 .*inf"),
    "minus infinity": (at(5, -np.inf), "row 5 .*inf"),
    "texts": (lambda column: column.astype(str), "values; expected numbers"),
    "objects": (lambda column: np.full(column.shape, None), "values; expected numbers"),
    "complex numbers": (lambda column: column.astype(complex), "values; expected numbers"),
    "a row too few": (lambda column: column[:-1], "rows"),
    "half of the rows": (lambda column: column[::2], "rows"),
    "a single number": (lambda column: 1.0, "row|single value"),
}
COLUMNS = ("observations", "actions", "rewards", "next_observations")


def damaged() -> list[Input]:
    inputs = []
    for column in COLUMNS:
        for name, (change, message) in DAMAGE.items():
            # The number of rows is compared with that of the actions.
            expected = (
                "has 200 rows, but `actions`" if (column, message) == ("actions", "rows") else rf"`{column}`.*({message})"
            )
            inputs.append(Input(f"{column}: {name}", lambda _, c=column, f=change: model(changed(c, f)), expected))
    flags = {"half": (0.5, "is 0.5"), "two": (2.0, "is 2"), "negative": (-1.0, "is -1"), "nan": (np.nan, "nan")}
    for column in ("terminations", "truncations"):
        for name, (value, message) in flags.items():
            inputs.append(Input(f"{column}: {name}", lambda _, c=column, v=value: model(changed(c, at(2, v))), message))
    return inputs


def special() -> list[Input]:
    data = collect(pendulum)
    rows = len(data["actions"])
    ends = {"terminations", "truncations", "next_observations"}
    nothing = "Cannot read .* as a dataset..*Expected a name"
    return [
        Input("a number", lambda _: model(3), nothing),
        Input("a truth value", lambda _: model(True), nothing),
        Input("an array", lambda _: model(np.zeros((3, 3))), nothing),
        Input("a generator", lambda _: model(value for value in [1]), nothing),
        Input("a function", lambda _: model(lambda: data), nothing),
        Input("an empty list", lambda _: model([]), "list of datasets is empty"),
        Input("a list of numbers", lambda _: model([1, 2]), nothing),
        Input("a list of tuples", lambda _: model([(np.zeros(3), np.zeros(1), 0.0)] * 50), nothing),
        Input("an empty dictionary", lambda _: model({}), "`observations` is missing. Found: nothing"),
        Input(
            "no rewards",
            lambda _: model({**data, "rewards": None}),
            "has no rewards, which FQL needs. Add `rewards`, or imitate",
        ),
        Input("no actions", lambda _: model({**data, "actions": None}), "`actions` is missing"),
        Input("no rows", lambda _: model({name: column[:0] for name, column in data.items()}), "no transition"),
        Input(
            "nothing about episodes",
            lambda _: model({name: column for name, column in data.items() if name not in ends}),
            "nothing says where episodes end",
        ),
        Input(
            "next observations with other parts",
            lambda _: model({**data, "observations": {"": data["observations"], "a": data["observations"]}}),
            "`next_observations` has one array, but `observations` the parts , a",
        ),
        Input("steps as an array", lambda _: model({"steps": [1, 2]}), "`observations` is missing. Found: steps"),
        Input("actions of two joints", lambda _: model({**data, "actions": np.zeros((rows, 2))}), r"\(200, 2\).*\(1,\)"),
        Input(
            "observations of two numbers",
            lambda _: model({**data, "observations": data["observations"][:, :2]}),
            r"`observations` has the shape \(2,\).*\(3,\)",
        ),
        Input("actions outside", lambda _: model(changed("actions", at(8, 2.5))), r"`actions` row 8 is \[2.5\], outside"),
        Input("an unknown file", lambda _: model("nothing.npz"), "nothing.npz: there is no such file"),
        Input("an unknown folder", lambda _: model("no/such/folder"), "There is no such file or folder"),
        Input("an address", lambda _: model("https://example.org/data.npz"), "there is no such file"),
        Input(
            "a path of an unknown user",
            lambda _: model("~unknown-user/data.npz"),
            "unknown-user/data.npz: there is no such file",
        ),
        Input("a path with a null", lambda _: model("~\0.npz"), "is not a path .embedded null"),
        Input("an unknown name", lambda _: model("my-data"), nothing),
        Input("a misspelled name", lambda _: model("cube-single-plya-v0"), "did you mean 'cube-single-play-v0'"),
        Input("a misspelled maze", lambda _: model("antmaze-larg-navigate-v0"), "did you mean 'antmaze-large-navigate-v0'"),
        Input("another version", lambda _: model("cube-single-play-v1"), "did you mean 'cube-single-play-v0'"),
        Input("a misspelled prefix", lambda _: model("ogbnch:cube-single-play-v0"), "did you mean 'cube-single-play-v0'"),
        Input("a column that is not used", lambda _: model({**data, "mood": np.zeros(rows)}), warning="not used: `mood`"),
        Input(
            "many columns",
            lambda _: model({f"a{i}": np.zeros(3) for i in range(999)}),
            "is missing.*and 979 more",
        ),
        Input("a number as name", lambda _: model({**data, 3: np.zeros(rows)}), warning="not used: `3`"),
        Input("tensors", lambda _: model({name: th.as_tensor(column) for name, column in data.items()}) and None),
        Input("lists", lambda _: model({name: column.tolist() for name, column in data.items()}) and None),
        Input(
            "times since 1970",
            lambda _: model(changed("observations", lambda column: 1.7e9 + np.arange(3 * rows).reshape(-1, 3))),
            warning="element 0 of `observations` goes from 1.7e.09 to .*has steps of 128, so that values become equal",
        ),
        Input(
            "rewards that become equal",
            lambda _: model(changed("rewards", lambda column: 2**25 + np.arange(rows))),
            warning="element 0 of `rewards` goes from 33554432 to .*has steps of 4",
        ),
        Input(
            "numbers of commands without an environment",
            lambda _: FQL("FlowPolicy", dataset={**data, "actions": 2**25 + np.arange(rows)[:, None] % 9}, **SMALL),
            "element 0 of `actions` goes from 33554432 to 33554440.*has steps of 4.*Pass the environment",
        ),
        Input("double precision", lambda _: model(changed("observations", lambda column: column.astype(np.float64))) and None),
        Input("a list of episodes", lambda _: model([data] * 30) and None),
        Input("actions without their axis", lambda _: model(changed("actions", np.squeeze)) and None),
        Input(
            "demonstrations without rewards",
            lambda _: StreamingFlow("FlowPolicy", pendulum(), dataset={**data, "rewards": None}, **SMALL) and None,
        ),
    ]


def descriptions() -> list[Input]:
    """Descriptions of datasets with changes, as in YAML."""
    data = collect(pendulum)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "rewards as a list": (
            {"rewards": [1, 2]},
            r"`rewards` is \[1, 2\], which is not understood.*Example: `rewards: {shift",
        ),
        "a shift as text": ({"rewards": {"shift": "down"}}, "`rewards` is .*'down'.*not understood"),
        "a clip of one number": ({"rewards": {"clip": 1}}, "`rewards` is .*not understood"),
        "a shift of nan": ({"rewards": {"shift": np.nan}}, "`rewards` row 0 has the value nan"),
        "an unknown change": ({"rewards": "shrink"}, "there is no change of rewards 'shrink'; known: shift"),
        "actions as a number": ({"actions": 2}, "`actions` is 2, which is not understood.*Example"),
        "observations as a number": ({"observations": 3}, "`observations` is 3, which is not understood.*Example"),
        "frames as text": (
            {"frame_skip": "many"},
            "`frame_skip` is 'many', which is not understood.*Example: `frame_skip: 4`",
        ),
        "a clip with reversed bounds": ({"rewards": {"clip": [1, 0]}}, "the first bound must not be above the second one"),
        "returns with a difference of -1": (
            {"rewards": {"normalize_returns": -1}},
            "`rewards` is .*the difference of returns must be above 0",
        ),
        "actions clipped with reversed bounds": (
            {"actions": {"clip": [1, -1]}},
            "`actions` is .*the first bound must not be above the second one",
        ),
        "observations as text": ({"observations": "arm"}, "`observations` is 'arm', .*a list of keys is expected"),
        "no observations": ({"observations": []}, r"`observations` is \[\], .*a list of keys is expected"),
        "flatten as text": ({"flatten": "arm"}, "`flatten` is 'arm', .*a list of keys is expected"),
        "keys to flatten of vectors": ({"flatten": ["arm"]}, "the observations have no parts arm; there: no dictionary"),
        "frames as a truth value": ({"frame_skip": True}, "`frame_skip` is True; expected a number of steps from 1"),
        "frames with an unknown option": (
            {"frame_skip": {"steps": 2, "action": "sum"}},
            "`frame_skip` is .*'action': 'sum'.*; expected a number of steps from 1",
        ),
        "a weight of -1": ({"weight": -1}, "`weight` is -1; expected a number above 0"),
        "a weight as text": ({"weight": "heavy"}, "`weight` is 'heavy'; expected a number above 0"),
        "no frames": ({"frame_skip": 0}, "`frame_skip` is 0; expected a number of steps from 1"),
        "an unknown key": ({"reward": 3}, "The description of a dataset has 'reward'; known: source"),
    }
    inputs = [
        Input(f"description: {name}", lambda _, d=description: model({"source": data, **d}), message)
        for name, (description, message) in wrong.items()
    ]
    weights: dict[str, tuple[Any, str]] = {
        "text": ("heavy", r"The weights of the datasets are \['heavy', 1\]; expected a number above 0"),
        "nan": (np.nan, "the weights are .*nan.*; expected one number above 0"),
        "infinity": (np.inf, "the weights are .*inf.*; expected one number above 0"),
        "zero": (0, "the weights are .*0.*; expected one number above 0"),
    }
    return inputs + [
        Input(
            f"weight: {name}",
            lambda _, w=weight: model([{"source": data, "weight": w}, {"source": data, "weight": 1}]),
            message,
        )
        for name, (weight, message) in weights.items()
    ]


def files() -> list[Input]:
    """Files of datasets: damaged, empty, of other kinds."""

    def written(name: str, content: bytes) -> Callable[[Path], Any]:
        def give(folder: Path) -> Any:
            (folder / name).write_bytes(content)
            return model(str(folder / name))

        return give

    def truncated(folder: Path) -> Any:
        np.savez(folder / "data.npz", **collect(pendulum))
        content = (folder / "data.npz").read_bytes()
        (folder / "data.npz").write_bytes(content[: len(content) // 2])
        return model(str(folder / "data.npz"))

    def pickled(folder: Path) -> Any:
        np.savez(folder / "data.npz", observations=np.array([{"a": 1}], dtype=object), actions=np.zeros((1, 1)))
        return model(str(folder / "data.npz"))

    def good(folder: Path) -> None:
        np.savez(folder / "data.npz", **collect(pendulum))
        model(folder / "data.npz")

    return [
        Input("an empty .npz file", written("data.npz", b""), "data.npz"),
        Input("a text as .npz file", written("data.npz", b"observations, actions"), "no .npz file, or it is damaged"),
        Input("half of an .npz file", truncated, "no .npz file, or it is damaged"),
        Input("objects in an .npz file", pickled, "data.npz"),
        Input("an empty .hdf5 file", written("data.hdf5", b""), "data.hdf5"),
        Input("a text as .hdf5 file", written("data.hdf5", b"observations"), "data.hdf5"),
        Input("a text as .parquet file", written("data.parquet", b"observations"), "data.parquet"),
        Input("a .csv file", written("data.csv", b"observations,actions\n1,2\n"), "data.csv|Cannot read"),
        Input("a path object", good),
    ]


def of_other_spaces() -> list[Input]:
    """Data for environments with other observations or actions."""
    number, joint = spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,))

    def given(space: spaces.Space, data: dict[str, Any], vectorized: Callable[[gym.Env], Any] = lambda env: env) -> Any:
        env = AnySpaces(space, joint)
        return FQL("FlowPolicy", vectorized(env), dataset={**collect(lambda: env, 40), **data}, **SMALL)

    def frames(channels: int) -> np.ndarray:
        return np.zeros((40, channels, 36, 36), np.uint8)

    def buffer() -> ReplayBuffer:
        actions = spaces.Box(-9, 9, (1,))
        collected = ReplayBuffer(40, pendulum().observation_space, actions, device="cpu")
        for end in [0, 0, 0, 1] * 10:
            row = (np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 1)), np.zeros(1), np.array([end]), [{}])
            collected.add(*row)
        return collected

    def no_statistics() -> VecNormalize:
        return VecNormalize(DummyVecEnv([pendulum]), training=False)

    def silently(give: Callable[[], Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            give()

    choices = np.full(40, 1)
    part = {"a": np.zeros((40, 1), np.float32)}
    pair = {name: part for name in ("observations", "next_observations")}
    following = choices.copy()
    following[7] = 3
    data = collect(pendulum)
    images = {"observations": frames(1), "next_observations": None}
    demonstrations = {name: column for name, column in data.items() if name != "rewards"}

    def weighted(weights: np.ndarray) -> OfflineDataset:
        return replace(OfflineDataset.from_dict(data, "data"), weights=weights)

    return [
        Input(
            "a choice that the space does not have",
            lambda _: given(spaces.Discrete(3), {"observations": choices + 2}),
            r"`observations` row 0 has the value 3; expected whole numbers of the space Discrete\(3\)",
        ),
        Input(
            "a following choice that the space does not have",
            lambda _: given(spaces.Discrete(3), {"next_observations": following}),
            "`next_observations` row 7 has the value 3; expected whole numbers",
        ),
        Input(
            "half a choice",
            lambda _: given(spaces.MultiDiscrete([2, 3]), {"observations": np.full((40, 2), 0.5)}),
            "`observations` row 0 has the value 0.5; expected whole numbers",
        ),
        Input(
            "bits of two",
            lambda _: given(spaces.MultiBinary(2), {"observations": np.full((40, 2), 2)}),
            "`observations` row 0 has the value 2; expected whole numbers",
        ),
        Input("a part of another name", lambda _: given(spaces.Dict({"b": number}), pair), warning="'a' are used as 'b'"),
        Input(
            "gray images",
            lambda _: given(spaces.Box(0, 255, (3, 36, 36), np.uint8), images),
            warning="gray images; three of them in a row are used as one",
        ),
        Input(
            "a replay buffer with other actions",
            lambda _: model(buffer()),
            r"The replay buffer has actions in Box\(-9.*action space of this model is Box\(-2",
        ),
        Input(
            "statistics that do not exist",
            lambda _: FQL("FlowPolicy", no_statistics(), dataset=data, **SMALL),
            warning="`VecNormalize.training=False.` has no statistics, so observations are not normalized",
        ),
        Input(
            "discounts of 0",
            lambda _: model({**{k: v for k, v in data.items() if k != "terminations"}, "discount": 1 - data["truncations"]}),
            warning="`discount` is 0 in row 9, but it is not used",
        ),
        Input(
            "a box of True and False",
            lambda _: given(spaces.Box(0, 1, (3,), np.bool_), {}) and None,
        ),
        Input(
            "a box of all integers",
            lambda _: silently(lambda: given(spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64), {})),
        ),
        Input("one of two without rewards", lambda _: model([data, demonstrations]), "no rewards.*dataset.1.*no rewards"),
        Input(
            "weights below zero",
            lambda _: weighted(np.full(200, -1.0)),
            "`weights` goes from -1 to -1; expected 0 or more",
        ),
        Input("weights of zero", lambda _: weighted(np.zeros(200)), "`weights` goes from 0 to 0; .*not only 0"),
        Input(
            "weights of two columns",
            lambda _: weighted(np.ones((200, 2))),
            r"`weights` has the shape \(2,\) per row; expected one number",
        ),
    ]


INPUTS = damaged() + of_other_spaces() + special() + descriptions() + files()
