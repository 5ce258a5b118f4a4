"""The record of a method, from which the rest of the package derives its lists of methods."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow.common.search import SearchSpace


@dataclass(frozen=True)
class Variant:
    """
    A variant of a method in RL Zoo.

    :param name: Name for ``--algo``; its settings are in ``zoo_configs/<name>.yml``
    :param arguments: Constructor arguments of this variant
    :param search_space: Search space of ``optimize``; None: there is none
    :param deterministic: Whether its paper evaluates deterministic actions; papers of flow policies usually sample
    :param small: Constructor arguments of a small model, for tests; None: no conformance tests
    :param updates: Constructor arguments with which each update is a full one, for benchmarks; None: no benchmarks of updates
    :param stages: Number of small updates until every loss was minimized once
    :param samples: Whether actions are random with ``deterministic=False``
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
    :param regime: Regimes of training, as text
    :param variants: At least one; the first one is that of the constructor's defaults
    :param paper: URL of the paper
    :param docs: Its page in ``docs/``
    :param shown: What results or tests of this repository show, as Markdown with links from its root; for the README
    :param reconstructed: Whether it is our reconstruction from an incomplete description
    :param baseline: Whether it is a baseline
    :param environment: Id of an environment for it
    """

    algorithm: type[BaseAlgorithm]
    title: str
    regime: str
    variants: tuple[Variant, ...]
    paper: str | None = None
    docs: str | None = None
    shown: str | None = None
    reconstructed: bool = False
    baseline: bool = False
    environment: str = "Pendulum-v1"
