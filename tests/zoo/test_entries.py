"""Entries of configurations: patterns for names, and values that are filled in."""

import copy
from typing import Any

import pytest

from sb3_flow.zoo.entries import find_entry, resolve_entries

TASK = "cube-single-singletask-task3-v0"


def resolve(entries: dict[str, Any], env_id: str = TASK) -> Any:
    """The entry of an environment."""
    return resolve_entries(entries, env_id)[env_id]


@pytest.mark.parametrize(
    ("names", "env_id", "expected"),
    [
        ([TASK, "cube-*"], TASK, TASK),
        (["cube-*", TASK], TASK, TASK),
        (["cube-single-*", "scene-*", "default"], TASK, "cube-single-*"),
        (["cube-single-singletask-task?-v0"], TASK, "cube-single-singletask-task?-v0"),
        (["cube-single-singletask-task[12]-v0"], TASK, None),
        (["cube-single-singletask*-v0"], "cube-single-singletask-v0", "cube-single-singletask*-v0"),
        (["cube-single-singletask*-v0"], "visual-cube-single-singletask-task1-v0", None),
        (["cube-single-singletask*-v0"], "cube-single-singletask-task1-v01", None),
        (["pendulum-*"], "Pendulum-v1", None),
        (["default"], "Pendulum-v1", None),
        ([], "Pendulum-v1", None),
    ],
)
def test_the_id_goes_before_patterns(names: list[str], env_id: str, expected: str | None) -> None:
    assert find_entry({name: {} for name in names}, env_id) == expected


def test_two_patterns_for_one_environment_are_refused() -> None:
    entries = {"cube-*": {}, "*-task3-v0": {}, "scene-*": {}}
    with pytest.raises(ValueError, match=rf"`cube-\*` and `\*-task3-v0` match {TASK}; change one of them, or add an entry"):
        find_entry(entries, TASK)
    assert find_entry(entries, "scene-singletask-task1-v0") == "scene-*"
    assert find_entry({**entries, TASK: {}}, TASK) == TASK


@pytest.mark.parametrize(("task", "dataset"), [("-task3", "ogbench:a-play-task3-v0"), ("", "ogbench:a-play-v0")])
def test_a_placeholder_is_what_the_name_leaves_open(task: str, dataset: str) -> None:
    """Wherever it stands; all else is as it was, and nothing is changed in place."""
    entry = {
        "dataset": "ogbench:a-play{*}-v0",
        "env_wrapper": [{"wrapper": {"text": "{*}{*}"}}],
        "n": 3,
        "alpha": 0.5,
        "normalize": True,
        "nothing": None,
        "other": "a*b {} {x}",
    }
    entries = {"a*-v0": entry}
    before = copy.deepcopy(entries)
    found = resolve(entries, f"a{task}-v0")
    assert found == {**entry, "dataset": dataset, "env_wrapper": [{"wrapper": {"text": task * 2}}]}
    assert entries == before


@pytest.mark.parametrize(
    "name", [TASK, "cube-single-*-task*-v0", "cube-single-singletask-task?*", "cube-single-singletask-task[3]*"]
)
def test_a_placeholder_needs_one_open_place(name: str) -> None:
    with pytest.raises(ValueError, match="needs a name with one `\\*` and without `\\?` and `\\[`"):
        resolve({name: {"dataset": "a{*}"}})
    assert resolve({name: {"dataset": "a"}}) == {"dataset": "a"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("= 0.3 / 8", 0.0375),
        ("= 2 * 0.3 / 6", 0.1),  # rounded once: 0.6 / 6 in floating-point numbers is less than 0.1
        ("=10/5", 2.0),
        ("= 1e-4 * 2.5E3", 0.25),
        ("= 8 / 2 / 2", 2.0),
        ("= 7", 7.0),
    ],
)
def test_formulas(text: str, value: float) -> None:
    found = resolve({TASK: {"alpha": text, "nested": {"list": [text]}}})
    assert found == {"alpha": value, "nested": {"list": [value]}} and isinstance(found["alpha"], float)


@pytest.mark.parametrize(
    "text",
    ["=", "= a", "= 1 + 2", "= 1 /", "= 1 // 2", "= 2 ** 3", "= (1 / 2)", "= -1", "= 1 2", "= __import__('os')", "== 1"],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    """Nothing is evaluated as Python."""
    with pytest.raises(ValueError, match=f"entry {TASK!r}: .* is not a formula; expected numbers with"):
        resolve({TASK: {"alpha": text}})


def test_nothing_is_divided_by_zero() -> None:
    with pytest.raises(ValueError, match="divides by zero"):
        resolve({TASK: {"alpha": "= 1 / 0.0"}})


def test_texts_that_look_like_formulas_are_left_alone() -> None:
    entry = {"dataset": "2024/05", "learning_rate": "lin_3e-4", "policy_kwargs": "dict(net_arch=[8])"}
    assert resolve({TASK: entry}) == entry


def test_shared_entries_are_filled_in_too() -> None:
    entries = {"default": {"alpha": "= 1 / 4"}, "atari": {"frame_stack": 4}, "cube-*": {"alpha": 1.0}, "scene-*": {}}
    assert resolve_entries(entries, "Pendulum-v1") == {"default": {"alpha": 0.25}, "atari": {"frame_stack": 4}}
    assert set(resolve_entries(entries, TASK)) == {TASK, "default", "atari"}
    with pytest.raises(ValueError, match="entry 'default'"):
        resolve_entries({"default": {"dataset": "a{*}"}}, TASK)
