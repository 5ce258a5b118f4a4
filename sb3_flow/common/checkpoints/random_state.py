"""The state of the global random generators. The state of environments cannot be saved in general."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch as th

from sb3_flow.common.checkpoints.run import Resumable


def get_global_state() -> dict[str, Any]:
    """Get the state of the global generators, for ``set_global_state``."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def set_global_state(state: dict[str, Any]) -> None:
    """
    Restore the state of the global generators. That of CUDA is ignored if it has another number of devices.

    :param state: As returned by ``get_global_state``
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    th.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == th.cuda.device_count():
        th.cuda.set_rng_state_all(state["cuda"])


def get_random_state(model: Resumable) -> dict[str, Any]:
    """
    Get the state of the global generators and of the action space. The model saves the state of its own generators.

    :param model: The model
    :return: The state, for ``set_random_state``
    """
    return {**get_global_state(), "action_space": model.action_space.np_random.bit_generator.state}


def set_random_state(model: Resumable, state: dict[str, Any]) -> None:
    """
    Restore the state of the generators.

    :param model: The model
    :param state: As returned by ``get_random_state``
    """
    set_global_state(state)
    model.action_space.np_random.bit_generator.state = state["action_space"]


def check_random_state(state: dict[str, Any]) -> None:
    """
    Check a state before it is restored, which happens only when training continues.

    :param state: As returned by ``get_random_state``
    :raises ValueError: If a part of it is missing or malformed.
    """
    try:
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state(state["numpy"])
        th.Generator().set_state(state["torch"])
        np.random.default_rng().bit_generator.state = state["action_space"]
        if not all(isinstance(part, th.Tensor) for part in state["cuda"]):
            raise ValueError("a state of CUDA is not a tensor")
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the states of its random generators are malformed: {error!r}") from error


def seed_from(generator: th.Generator) -> int:
    """
    Derive a seed from the state of a generator, which is not changed.

    :param generator: The generator
    :return: A seed in [0, 2^31 - 2^16), so that environments can add their index to it
    """
    twin = th.Generator(generator.device)
    twin.set_state(generator.get_state())
    return int(th.randint(2**31 - 2**16, (), generator=twin, device=generator.device))
