"""
Properties that hold for all spaces, datasets and bad values, of which hypothesis draws examples, always the same ones.

What a dataset must give is worked out from trajectories followed step by step, as in ``test_buffers``.
"""

import copy
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.algorithms import ALGORITHMS
from conformance.case import AlgorithmCase
from conformance.environments import AnySpaces
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.datasets import load_dataset, unpack

GAMMA = 0.9
#: How datasets call the ends, and whether they say what follows a row.
DIALECTS = ["gymnasium, explicit", "gymnasium", "d4rl, explicit", "d4rl", "ogbench, explicit", "ogbench"]


def examples(n: int) -> settings:
    return settings(max_examples=n, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


# Spaces.


@st.composite
def boxes(draw: Any) -> spaces.Box:
    """Observation parts: any shape up to three axes, floats and integers, bounded on any side or not, and images."""
    if draw(st.booleans()):
        shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
        if draw(st.booleans()):
            dtype = draw(st.sampled_from([np.float32, np.float64, np.float16]))
            low = draw(st.sampled_from([-np.inf, -1e4, -1.0, 0.0]))
            return spaces.Box(low, draw(st.sampled_from([0.5, 1e4, np.inf])), shape, dtype)
        return spaces.Box(-100, 100, shape, draw(st.sampled_from([np.int8, np.int32, np.int64])))
    height, width = draw(st.integers(8, 10)), draw(st.integers(8, 10))
    return spaces.Box(0, 255, draw(st.sampled_from([(3, height, width), (height, width, 3), (height, width, 1)])), np.uint8)


KEYS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=5)


def has_one_convention(space: spaces.Dict) -> bool:
    """Whether the channels of all images are on the same side: Stable-Baselines3 refuses others."""
    images = [part for part in space.spaces.values() if is_image_space(part)]
    return len({is_image_space_channels_first(image) for image in images}) < 2


OBSERVATIONS = st.one_of(
    boxes(), st.dictionaries(KEYS, boxes(), min_size=1, max_size=3).map(spaces.Dict).filter(has_one_convention)
)


@st.composite
def action_spaces(draw: Any) -> spaces.Box:
    """Any finite box: each side has its own bounds, as narrow as the type allows, or too wide for single precision."""
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    n = int(np.prod(shape))
    dtype = np.dtype(draw(st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.int32, np.uint8])))
    if dtype.kind == "f":
        largest = 0.99 * float(min(np.finfo(dtype).max, np.finfo(np.float32).max))
        numbers = st.one_of(st.floats(-10, 10), st.floats(-1e-30, 1e-30), st.sampled_from([-largest, largest, 0.0, 1.0]))
    else:
        numbers = st.integers(max(np.iinfo(dtype).min, -(10**6)), min(np.iinfo(dtype).max, 10**6))
    bounds = np.array([draw(st.tuples(numbers, numbers)) for _ in range(n)], dtype=dtype)
    low, high = bounds.min(axis=1), bounds.max(axis=1)
    for i in np.flatnonzero(low == high):  # the narrowest space around the number, or beside it
        if dtype.kind == "f":
            low[i] = np.nextafter(low[i], dtype.type(-np.inf), dtype=dtype) if low[i] > 0 else low[i]
            high[i] = np.nextafter(high[i], dtype.type(np.inf), dtype=dtype) if low[i] == high[i] else high[i]
        elif low[i] == np.iinfo(dtype).max:
            low[i] -= 1
        else:
            high[i] += 1
    return spaces.Box(low.reshape(shape), high.reshape(shape), shape, dtype)


def parts(space: spaces.Space) -> dict[str, spaces.Box]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def seen(space: spaces.Box) -> spaces.Box:
    """A part as algorithms see it: images with their channels first."""
    if space.dtype == np.uint8 and space.shape[-1] in (1, 3) and space.shape[0] >= 8:
        return spaces.Box(0, 255, (space.shape[2], *space.shape[:2]), np.uint8)
    return space


def seen_by_algorithms(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: seen(part) for key, part in space.spaces.items()})
    return seen(space)


def sample(space: spaces.Space, n: int, rng: np.random.Generator) -> Any:
    """Observations or actions of a space, ``n`` of them."""
    if isinstance(space, spaces.Dict):
        return {key: sample(part, n, rng) for key, part in space.spaces.items()}
    low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
    share = rng.uniform(0, 1, (n, *space.shape))
    finite_low, finite_high = np.where(np.isfinite(low), low, -5.0), np.where(np.isfinite(high), high, 5.0)
    values = finite_low * (1 - share) + finite_high * share
    if space.dtype.kind in "iu":
        values = np.rint(values)
    return np.clip(values, low, high).astype(space.dtype)


# Datasets, and what they must give.


@dataclass
class Recording:
    """
    A dataset with what must come out of it.

    :param fields: The fields
    :param dialect: How they are named
    :param space: Observation space, as the data has it
    :param action_space: Action space
    :param trajectories: For each trajectory the rows of its transitions in the order of time, with the rows of their rewards
        and flags; what follows is in ``following``.
    """

    fields: dict[str, Any]
    dialect: str
    space: spaces.Space
    action_space: spaces.Box
    trajectories: list[list[int]]
    terminations: np.ndarray
    following: list[tuple[str, int] | None]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis prints of a failing example."""
        printer.text(f"<{self.dialect}: {list(self.fields)}, rows {self.trajectories}, {self.space}, {self.action_space}>")

    def buffer(self, fields: Any = None) -> OfflineBuffer:
        data = OfflineDataset.from_dict(self.fields if fields is None else fields)
        return OfflineBuffer(data, seen_by_algorithms(self.space), self.action_space)


def successors(observations: Any, last: Any, ends: np.ndarray) -> Any:
    """The next row's observation; at the ends of trajectories the row of ``last``."""
    if isinstance(observations, dict):
        return {key: successors(part, last[key], ends) for key, part in observations.items()}
    following = np.concatenate([observations[1:], last[-1:]])
    following[ends] = last[ends]
    return following


@st.composite
def recordings(draw: Any, space: st.SearchStrategy[spaces.Space] = OBSERVATIONS) -> Recording:
    """Trajectories written down in one of the dialects; fields that may be missing sometimes are."""
    observation_space, action_space = draw(space), draw(action_spaces())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dialect = draw(st.sampled_from(DIALECTS))
    explicit, ogbench = dialect.endswith("explicit"), dialect.startswith("ogbench")
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    spare = int(ogbench and not explicit)  # a row for the last state of each trajectory
    n = sum(lengths) + spare * len(lengths)
    terminations, ends = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    trajectories, row = [], 0
    for length in lengths:
        trajectories.append(list(range(row, row + length)))
        row += length + spare
        ends[row - 1] = True
        terminations[row - 1 - spare] = draw(st.booleans())
        if ogbench:  # the task may end while the recording goes on
            terminations[row - 1 - spare - draw(st.integers(0, length - 1))] |= draw(st.booleans())
    fields: dict[str, Any] = {
        "observations": sample(observation_space, n, rng),
        "actions": sample(action_space, n, rng),
        "rewards": (3 * rng.normal(size=n)).astype(draw(st.sampled_from([np.float64, np.float32, np.int64, ">f4"]))),
    }
    if action_space.dtype.kind == "f" and draw(st.booleans()):  # rounding, on whatever machine it was
        actions = fields["actions"].astype(draw(st.sampled_from([np.float64, ">f8"])))
        width = action_space.high.astype(np.float64) - action_space.low
        actions[0] = draw(st.sampled_from([action_space.high + 5e-4 * width, action_space.low - 5e-4 * width]))
        fields["actions"] = actions
    if draw(st.booleans()):
        fields["actions"] = fields["actions"].reshape(n, -1)
    if explicit:
        fields["next_observations"] = successors(fields["observations"], sample(observation_space, n, rng), ends)
    as_stored = draw(st.sampled_from([np.asarray, lambda x: x.astype(np.float64), lambda x: x.astype(int)[:, None]]))
    if ogbench:
        fields["masks"], fields["terminals"] = as_stored(~terminations), as_stored(ends)
    else:
        ended, cut = ("terminations", "truncations") if dialect.startswith("gymnasium") else ("terminals", "timeouts")
        fields[ended], fields[cut] = as_stored(terminations), as_stored(ends & ~terminations)
        # The last row ends the last trajectory anyway. Something has to tell the other ends, or that there are none.
        told = not (ends & ~terminations)[:-1].any() and (explicit or terminations.any() or n == 1)
        if told and draw(st.booleans()):
            del fields[cut]
        if not terminations.any() and draw(st.booleans()):
            del fields[ended]
    following: list[tuple[str, int] | None] = []
    for i in range(n):
        if explicit:
            following.append(("next_observations", i))
        elif ends[i]:
            following.append(None)
        else:
            following.append(("observations", i + 1))
    if not explicit and not ogbench:  # what followed the last row of a recording that was cut is not known
        trajectories = [rows if terminations[rows[-1]] else rows[:-1] for rows in trajectories]
    trajectories = [rows for rows in trajectories if rows]
    return Recording(fields, dialect, observation_space, action_space, trajectories, terminations, following)


def n_step(recording: Recording, rows: list[int], n_steps: int) -> tuple[float, float, float, int]:
    """Reward, mask and discount of the first steps of some rows, and the last row that they reach."""
    reward, discount = 0.0, 1.0
    for row in rows[:n_steps]:
        reward += discount * float(recording.fields["rewards"][row])
        discount *= GAMMA
        if recording.terminations[row]:
            return reward, 0.0, discount, row
    return reward, 1.0, discount, rows[:n_steps][-1]


def assert_observation(got: Any, fields: Any, row: int, space: spaces.Space) -> None:
    """One observation of a batch is that of a row, channels first, in single precision or bytes."""
    for key, part in parts(space).items():
        tensor, wanted = (got[key], fields[key][row]) if key else (got, fields[row])
        if seen(part) is not part:
            wanted = wanted.transpose(2, 0, 1)
        assert tensor.dtype == (th.uint8 if part.dtype == np.uint8 else th.float32)
        np.testing.assert_array_equal(tensor, wanted.astype(tensor.numpy().dtype))


def assert_unchanged(fields: dict[str, Any], before: dict[str, Any]) -> None:
    assert list(fields) == list(before)
    for field, value in before.items():
        for key in value if isinstance(value, dict) else [""]:
            now, then = (fields[field][key], value[key]) if key else (fields[field], value)
            assert now.dtype == then.dtype
            np.testing.assert_array_equal(now, then)


@pytest.mark.slow
@given(recordings(), st.integers(1, 4))
@examples(120)
def test_good_data_gives_good_batches(recording: Recording, n_steps: int) -> None:
    """Every transition comes out once, with the return, mask, discount and successor of its own trajectory."""
    before = copy.deepcopy(recording.fields)
    starts = [(rows, i) for rows in recording.trajectories for i in range(len(rows))]
    if not starts:
        with pytest.raises(DatasetError, match="no row is a transition"):
            recording.buffer()
        return
    buffer = recording.buffer()
    assert len(buffer) == len(starts)
    batch = buffer.draw(th.arange(len(buffer)), n_steps, GAMMA)
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (recording.action_space.low, recording.action_space.high))
    for number, (rows, i) in enumerate(starts):
        reward, mask, discount, last = n_step(recording, rows[i:], n_steps)
        action = recording.fields["actions"][rows[i]].reshape(-1).astype(np.float64)
        scaled = np.clip(2 * (action - low) / (high - low) - 1, -1, 1)
        np.testing.assert_allclose(batch.actions[number], scaled, atol=1e-6)
        np.testing.assert_allclose(batch.rewards[number], reward, rtol=1e-5, atol=1e-6)
        assert (batch.masks[number].item(), batch.valids[number].item()) == (mask, 1.0)
        np.testing.assert_allclose(batch.discounts[number], discount, rtol=1e-6)
        own, following = (
            {key: part[number] for key, part in column.items()} if isinstance(column, dict) else column[number]
            for column in (batch.observations, batch.next_observations)
        )
        assert_observation(own, recording.fields["observations"], rows[i], recording.space)
        source = recording.following[last]
        if source is not None:
            assert_observation(following, recording.fields[source[0]], source[1], recording.space)
        else:
            assert mask == 0.0 or recording.dialect == "ogbench"
    assert batch.actions.abs().max() <= 1
    for column in batch:
        for part in column.values() if isinstance(column, dict) else [column]:
            assert part.isfinite().all() and len(part) == len(buffer)
    assert_unchanged(recording.fields, before)


@pytest.mark.slow
@given(recordings(st.one_of(boxes(), st.dictionaries(st.sampled_from("abc"), boxes(), min_size=1).map(spaces.Dict))))
@examples(40)
def test_files_hold_what_dictionaries_hold(recording: Recording) -> None:
    """An ``.npz`` file and a folder of memory-mapped arrays give the batches that the dictionary gives."""
    if not any(recording.trajectories):
        return
    columns = {}
    for field, value in recording.fields.items():
        columns.update({f"{field}/{key}": part for key, part in value.items()} if isinstance(value, dict) else {field: value})
    expected = recording.buffer()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.npz")
        np.savez(path, **columns)
        for source in (path, unpack(path, Path(folder, "data"))):
            data = load_dataset(source)
            buffer = OfflineBuffer(data, seen_by_algorithms(recording.space), recording.action_space)
            assert len(buffer) == len(expected)
            got, wanted = (one.draw(th.arange(len(buffer)), 3, GAMMA) for one in (buffer, expected))
            for column, right in zip(got, wanted, strict=True):
                for key in right if isinstance(right, dict) else [None]:
                    assert th.equal(*(column, right) if key is None else (column[key], right[key]))


# Bad data.


def leaves(fields: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The arrays in fields, by field and key."""
    return [(field, key) for field, value in fields.items() for key in (value if isinstance(value, dict) else [None])]


def get(fields: dict[str, Any], leaf: tuple[str, str | None]) -> np.ndarray:
    return fields[leaf[0]] if leaf[1] is None else fields[leaf[0]][leaf[1]]


def put(fields: dict[str, Any], leaf: tuple[str, str | None], value: Any) -> None:
    if leaf[1] is None:
        fields[leaf[0]] = value
    else:
        fields[leaf[0]][leaf[1]] = value


FLAGS = {"terminations", "truncations", "terminals", "timeouts", "masks"}


def bad_number(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    """NaN, infinity, what overflows single precision, and flags that are none, in any row."""
    leaf = draw(
        st.sampled_from([leaf for leaf in leaves(fields) if get(fields, leaf).dtype != np.uint8 or leaf[0] == "actions"])
    )
    column = np.array(get(fields, leaf), dtype=np.float64)
    row = draw(st.integers(0, len(column) - 1))
    element = draw(st.integers(0, column[row].size - 1))
    bad = [np.nan, np.inf, -np.inf] + ([0.5, 2.0, -1.0] if leaf[0] in FLAGS else [1e39, -1e300])
    column.reshape(len(column), -1)[row, element] = draw(st.sampled_from(bad))
    put(fields, leaf, column)
    return [leaf[0], f"row {row} "]


def outside(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    """An action outside its space, by a tenth of its width, or as little as can be written down."""
    row = draw(st.sampled_from([row for rows in recording.trajectories for row in rows]))
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (recording.action_space.low, recording.action_space.high))
    actions = np.array(fields["actions"], dtype=np.float64)
    element = draw(st.integers(0, len(low) - 1))
    by = max(0.1 * (high[element] - low[element]), 1e-320)  # there are spaces of which a tenth is nothing
    below = min(low[element] - by, np.nextafter(low[element], -np.inf))
    above = max(high[element] + by, np.nextafter(high[element], np.inf))
    value = draw(st.sampled_from([below, above]))
    actions.reshape(len(actions), -1)[row, element] = value
    fields["actions"] = actions
    return ["actions", f"row {row} "]


def bad_length(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    """By two rows: one observation more than actions is an episode with its last observation."""
    leaf = draw(st.sampled_from(leaves(fields)))
    column = get(fields, leaf)
    put(fields, leaf, draw(st.sampled_from([column[:-2], np.concatenate([column, column[:1], column[:1]]), column[:0]])))
    return [leaf[0], "rows"] if len(leaves(fields)) > 1 else []


def bad_type(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    leaf = draw(st.sampled_from(leaves(fields)))
    column = get(fields, leaf)
    ragged = [[0.0], [0.0, 1.0]] * len(column)
    kinds = [
        column.astype(str),
        column.astype(complex),
        column.astype(object),
        np.zeros(len(column), "datetime64[s]"),
        "text",
        1.0,
        ragged[: max(len(column), 2)],
        {},
        {"a": {"b": column}},
        object(),
    ]
    put(fields, leaf, kinds[draw(st.integers(0, len(kinds) - 1))])
    return [leaf[0]]


def bad_shape(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    leaf = draw(st.sampled_from(leaves(fields)))
    column = get(fields, leaf)
    if leaf[0] in FLAGS or leaf[0] == "rewards":
        column = column.reshape(len(column), 1)
    put(fields, leaf, np.concatenate([column, column], axis=-1) if column.ndim == 2 else np.stack([column] * 2, axis=-1))
    return [leaf[0], "shape"]


def misnamed(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    """A required field under a name that no dialect has, or that has several meanings."""
    names = {"observations": ["obsevrations", "state", "states"], "actions": ["actoins", "controls"]}
    field = draw(st.sampled_from(list(names)))
    name = draw(st.sampled_from(names[field]))
    fields[name] = fields.pop(field)
    return [f"`{field}` is missing", name]


def missing(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    field = draw(st.sampled_from(["observations", "actions"]))
    if draw(st.booleans()):
        del fields[field]
    else:
        fields[field] = None
    return [field, "missing"]


def other_parts(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    """A part too many, one too few, or parts where there are none and the other way round."""
    field = draw(st.sampled_from([field for field in ("observations", "next_observations") if field in fields]))
    value = fields[field]
    if not isinstance(value, dict):
        fields[field] = {"part": value}
    else:
        first = next(iter(value.values()))
        fewer = dict(list(value.items())[1:])
        fields[field] = draw(st.sampled_from([{**value, "more": first}, fewer, first]))
    return [field]


def nothing(draw: Any, fields: dict[str, Any], recording: Recording) -> list[str]:
    for leaf in leaves(fields):
        put(fields, leaf, get(fields, leaf)[:0])
    return ["no transition"]


DAMAGES = [bad_number, outside, bad_length, bad_type, bad_shape, misnamed, missing, other_parts, nothing]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@given(st.data())
@examples(60)
def test_bad_data_is_refused(damage: Any, data: st.DataObject) -> None:
    """Whatever is wrong, the error is a ``DatasetError`` which names the field, and the row where it is a value."""
    recording = data.draw(recordings().filter(lambda recording: any(recording.trajectories)))
    fields = {key: dict(value) if isinstance(value, dict) else value for key, value in recording.fields.items()}
    words = damage(data.draw, fields, recording)
    with pytest.raises(DatasetError) as caught:
        recording.buffer(fields)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((4, 3, 8, 8), np.float32), "float32 values.*uint8"),  # from 0 to 1, where 0 to 255 is meant
        (np.zeros((4, 0, 8, 8), np.uint8), r"shape \(0, 8, 8\)"),
        (np.zeros((4, 2, 8, 8), np.uint8), r"shape \(2, 8, 8\)"),
    ],
)
def test_images_that_are_none(images: np.ndarray, message: str) -> None:
    """Pictures must be bytes, and the channels of the space a multiple of theirs."""
    data = {"observations": images, "actions": np.zeros((4, 1)), "rewards": np.zeros(4), "terminations": np.ones(4)}
    with pytest.raises(DatasetError, match=f"`observations`.*{message}"):
        OfflineBuffer(OfflineDataset.from_dict(data), spaces.Box(0, 255, (3, 8, 8), np.uint8), spaces.Box(-1, 1, (1,)))


# Acting, and saving.


@pytest.mark.slow
@given(st.sampled_from(ALGORITHMS), st.data())
@examples(25)
def test_predicted_actions_are_in_the_space(algorithm: AlgorithmCase, data: st.DataObject) -> None:
    """Whatever the spaces: shape, type and bounds are right, one by one and in a batch, and the same after save and load."""
    space, action_space = data.draw(OBSERVATIONS), data.draw(action_spaces())
    seed = data.draw(st.integers(0, 2**32))
    arguments = {
        "net_arch": [8],
        "features_extractor_kwargs": {"cnn_output_dim": 4},
        "best_of_n": data.draw(st.sampled_from([1, 2])) if algorithm.cls.needs_rewards else 1,  # without critics no choice
    }
    horizon_length = data.draw(st.sampled_from([1, 3]))
    model = algorithm.make(
        AnySpaces(space, action_space), policy_kwargs=arguments, horizon_length=horizon_length, seed=seed % 2**31
    )
    with th.no_grad():  # far outside [-1, 1] as well as inside
        for parameter in model.policy.parameters():
            parameter.mul_(data.draw(st.sampled_from([1.0, 30.0])))
    batch = sample(space, 3, np.random.default_rng(seed))
    single = {key: part[0] for key, part in batch.items()} if isinstance(batch, dict) else batch[0]
    before = copy.deepcopy(batch)
    for deterministic in (True, False):
        actions, _ = model.predict(batch, deterministic=deterministic)
        assert actions.shape == (3, *action_space.shape) and actions.dtype == action_space.dtype
        for action in [*actions, model.predict(single, deterministic=deterministic)[0]]:
            assert action_space.contains(action), (action, action_space)
    actions = sample(action_space, 3, np.random.default_rng(seed))
    there_and_back = model.policy.unscale_action(model.policy.scale_action(actions))
    width = action_space.high.astype(np.float64) - action_space.low
    tolerance = 0.0 if action_space.dtype.kind in "iu" else 1e-3 if action_space.dtype == np.float16 else 1e-6
    assert (abs(there_and_back.astype(np.float64) - actions) <= tolerance * (width + abs(actions))).all()
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = algorithm.load(file)
    np.testing.assert_array_equal(loaded.predict(batch, deterministic=True)[0], model.predict(batch, deterministic=True)[0])
    assert_unchanged({"": batch}, {"": before})


@pytest.mark.slow
@given(st.sampled_from([case for case in ALGORITHMS if case.offline]), recordings())
@examples(30)
def test_training_on_any_data(offline_algorithm: AlgorithmCase, recording: Recording) -> None:
    """A valid dataset trains: parameters stay finite, and the given arrays do not change."""
    if not any(recording.trajectories):
        return
    before = copy.deepcopy(recording.fields)
    model = offline_algorithm.make(
        AnySpaces(recording.space, recording.action_space),
        dataset=recording.fields,
        policy_kwargs={"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 4}},
        normalize_observations=True,
    )
    model.learn(3)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    assert_unchanged(recording.fields, before)
