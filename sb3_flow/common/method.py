"""The record of a method: all that the rest of the package needs to know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow.common.search import SearchSpace


@dataclass(frozen=True)
class Variant:
    """
    A method as RL Zoo knows it.

    :param name: Name that ``--algo`` takes; its settings are in ``zoo_configs/<name>.yml``
    :param arguments: Constructor arguments that make it this variant
    :param search_space: What ``optimize`` searches; None: nothing
    :param deterministic: Whether its paper evaluates deterministic actions; papers of flow policies usually sample.
    :param small: Constructor arguments that make it small, for tests; None: the conformance tests do not run over it
    :param updates: Constructor arguments with which each update is a full one, for benchmarks; None: benchmarks of updates do
        not run over it
    :param stages: Number of small updates until every loss has been descended once
    :param samples: Whether it acts at random where actions are not deterministic
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    search_space: SearchSpace | None = None
    deterministic: bool = False
    small: Mapping[str, Any] | None = None
    updates: Mapping[str, Any] | None = None
    stages: int = 1
    samples: bool = True


@dataclass(frozen=True)
class Method:
    """
    An algorithm, with its variants.

    :param algorithm: The class
    :param title: Name of the method, with authors and year
    :param regime: What it trains on, in words
    :param variants: At least one; the first one is the method as the constructor's defaults make it
    :param paper: Address of the paper
    :param docs: Its page in ``docs/``
    :param reconstructed: Whether it is our reconstruction, because the paper does not say all
    :param baseline: Whether it is there to be compared with
    :param environment: Id of an environment that it is for
    """

    algorithm: type[BaseAlgorithm]
    title: str
    regime: str
    variants: tuple[Variant, ...]
    paper: str | None = None
    docs: str | None = None
    reconstructed: bool = False
    baseline: bool = False
    environment: str = "Pendulum-v1"
