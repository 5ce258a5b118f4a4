"""Spaces as the arguments of their constructors."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

#: The supported classes of spaces; subclasses are not supported.
KINDS: dict[str, type[spaces.Space[Any]]] = {
    name: getattr(spaces, name)
    for name in ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Text", "Tuple", "Dict", "Sequence", "Graph", "OneOf")
    if hasattr(spaces, name)
}
Parts = tuple[str, dict[str, Any], Any]


def space_to_parts(space: spaces.Space[Any]) -> Parts | None:
    """
    Convert a space to the arguments of its constructor.

    :param space: The space
    :return: The name of its class, the arguments of the constructor, and the state of its random generator; None if its class
        is not supported
    """
    name = type(space).__name__
    if KINDS.get(name) is not type(space):
        return None
    return name, _arguments(space), _random_state(space)


def space_from_parts(name: str, arguments: dict[str, Any], state: Any) -> spaces.Space[Any]:
    """
    Create a space.

    :param name: Name of its class
    :param arguments: Arguments of its constructor
    :param state: State of its random generator; None: it has no generator yet
    :return: The space
    :raises ValueError: If a part of a ``Dict`` is not a space.
    """
    if name == "Dict":
        space: spaces.Space[Any] = spaces.Dict()
        space.spaces = dict(arguments["spaces"])  # type: ignore[attr-defined] # the constructor would sort the keys
        if not all(isinstance(part, spaces.Space) for part in space.spaces.values()):  # type: ignore[attr-defined]
            raise ValueError("a part of a Dict is not a space")
    else:
        space = KINDS[name](**arguments)
    if state is not None:
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = state
        space._np_random = generator
    return space


def _arguments(space: Any) -> dict[str, Any]:
    if isinstance(space, spaces.Box):
        return {"low": space.low, "high": space.high, "dtype": space.dtype}
    if isinstance(space, spaces.Discrete):
        return {"n": int(space.n), "start": int(space.start), **_other_dtype(space)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"nvec": space.nvec, "start": space.start, **_other_dtype(space)}
    if isinstance(space, spaces.MultiBinary):
        return {"n": space.n}
    if isinstance(space, spaces.Text):
        charset = "".join(space.character_list)
        return {"max_length": space.max_length, "min_length": space.min_length, "charset": charset}
    if isinstance(space, spaces.Dict):
        return {"spaces": list(space.spaces.items())}
    if isinstance(space, spaces.Sequence):
        return {"space": space.feature_space, "stack": space.stack}
    if isinstance(space, spaces.Graph):
        return {"node_space": space.node_space, "edge_space": space.edge_space}
    return {"spaces": space.spaces}


def _other_dtype(space: spaces.Space[Any]) -> dict[str, Any]:
    """The dtype, unless it is int64: Gymnasium before 1.2 has no argument for it."""
    return {} if space.dtype == np.int64 else {"dtype": space.dtype}


def _random_state(space: spaces.Space[Any]) -> Any:
    generator = space._np_random
    if generator is None or type(generator.bit_generator) is not np.random.PCG64:
        return None
    return dict(generator.bit_generator.state)
