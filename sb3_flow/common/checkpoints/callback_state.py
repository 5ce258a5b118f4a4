"""What callbacks remember, taken from those of one process and given to those of the next."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EventCallback

#: What a callback refers to, beside what it remembers.
REFERENCES = {"locals", "globals"}
#: A callback: the name of its class, and which one of that class it is.
Key = tuple[str, int]


def get_callback_state(root: BaseCallback) -> dict[Key, dict[str, Any]]:
    """
    What all callbacks remember: their attributes that are numbers, words, arrays, or collections of these. Arguments of
    their constructors are left out: these are settings, which belong to whoever makes the callbacks.

    :param root: The callback that holds all others
    :return: By callback, its attributes; to be pickled at once, before they change
    """
    return {
        key: {name: value for name, value in vars(callback).items() if name not in _settings(callback) and _is_plain(value)}
        for key, callback in _by_key(root).items()
    }


def set_callback_state(root: BaseCallback, state: Mapping[Key, Mapping[str, Any]]) -> None:
    """
    Let callbacks remember again. They are told apart by their classes, and among those of one class by their order.

    :param root: The callback that holds all others
    :param state: As returned by ``get_callback_state``
    """
    callbacks = _by_key(root)
    missing = [name for name, _ in state.keys() - callbacks.keys() if name != "ProgressBarCallback"]
    if missing:
        warnings.warn(
            f"The checkpoint was taken with callbacks that are not given now, so what they remember is lost: "
            f"{', '.join(sorted(missing))}. Pass the same callbacks to `learn`.",
            stacklevel=2,
        )
    for key in state.keys() & callbacks.keys():
        settings = _settings(callbacks[key])
        vars(callbacks[key]).update({name: value for name, value in state[key].items() if name not in settings})


def all_callbacks(root: BaseCallback) -> Iterator[BaseCallback]:
    """A callback and all that it calls, in order."""
    yield root
    children: list[BaseCallback | None] = []
    if isinstance(root, CallbackList):
        children += root.callbacks
    if isinstance(root, EventCallback):
        children.append(root.callback)
    if isinstance(root, EvalCallback):
        children.append(root.callback_on_new_best)
    for child in children:
        if child is not None:
            yield from all_callbacks(child)


def _by_key(root: BaseCallback) -> dict[Key, BaseCallback]:
    found: dict[Key, BaseCallback] = {}
    counts: Counter[str] = Counter()
    for callback in all_callbacks(root):
        name = type(callback).__qualname__
        if not isinstance(callback, CallbackList):  # these remember nothing, and a progress bar brings one more
            found[name, counts[name]] = callback
            counts[name] += 1
    return found


def _settings(callback: BaseCallback) -> set[str]:
    constructors = [vars(cls)["__init__"] for cls in type(callback).__mro__[:-1] if "__init__" in vars(cls)]
    return REFERENCES.union(*(inspect.signature(constructor).parameters for constructor in constructors))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.keys())) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return type(value) in (list, tuple, set, frozenset, deque) and all(map(_is_plain, value))
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic))
