"""The state of callbacks in checkpoints."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EventCallback

from sb3_flow.common.checkpoints.plain import NotPlain, to_plain

#: Attributes that are not state.
REFERENCES = {"locals", "globals"}
#: Callbacks that are added by ``progress_bar=True``. They have no state.
PROGRESS = {"ProgressBarCallback", "ProgressLinesCallback"}
#: Key of a callback: the name of its class, and its number among the callbacks of this class.
Key = tuple[str, int]


def get_callback_state(root: BaseCallback) -> dict[Key, dict[str, Any]]:
    """
    Get the state of all callbacks: their attributes that are numbers, strings, arrays, or collections of these. Arguments of
    their constructors are settings and are not included.

    :param root: The callback that contains all others
    :return: The attributes of each callback, without copies: write them before they change
    """
    return {
        key: {name: value for name, value in vars(callback).items() if name not in _settings(callback) and _is_plain(value)}
        for key, callback in _by_key(root).items()
    }


def set_callback_state(root: BaseCallback, state: Mapping[Key, Mapping[str, Any]]) -> None:
    """
    Restore the state of callbacks. They are identified by their class, and by their order among the callbacks of a class.

    :param root: The callback that contains all others
    :param state: As returned by ``get_callback_state``
    """
    callbacks = _by_key(root)
    missing = [name for name, _ in state.keys() - callbacks.keys() if name not in PROGRESS]
    if missing:
        warnings.warn(
            f"The checkpoint has the state of callbacks that were not passed to `learn`: {', '.join(sorted(missing))}. Their "
            "state is lost. Pass the same callbacks as before.",
            stacklevel=2,
        )
    for key in state.keys() & callbacks.keys():
        settings = _settings(callbacks[key])
        vars(callbacks[key]).update({name: value for name, value in state[key].items() if name not in settings})


def all_callbacks(root: BaseCallback) -> Iterator[BaseCallback]:
    """A callback and all callbacks that it contains, in order."""
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
        if not isinstance(callback, CallbackList):  # lists have no state, and a progress bar adds one
            found[name, counts[name]] = callback
            counts[name] += 1
    return found


def _settings(callback: BaseCallback) -> set[str]:
    constructors = [vars(cls)["__init__"] for cls in type(callback).__mro__[:-1] if "__init__" in vars(cls)]
    return REFERENCES.union(*(inspect.signature(constructor).parameters for constructor in constructors))


def _is_plain(value: Any) -> bool:
    if callable(value) or isinstance(value, spaces.Space):
        return False
    try:
        to_plain(value, arrays=[])
    except NotPlain:
        return False
    return True
