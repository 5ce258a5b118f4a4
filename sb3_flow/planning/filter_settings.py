"""Settings of the safety filter: ours, and those of its predecessor."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

#: Settings that are whole numbers.
WHOLE = ("basis_degree", "samples", "max_iterations", "block")
#: Settings with named values, and the names.
CHOICES = {"push": ("chords", "samples"), "majorizer": ("shared", "exact"), "metric": ("modal", "coefficients")}


def _check_number(name: str, value: Any) -> None:
    if not (isinstance(value, Real) and 0 <= float(value) < math.inf) or (name in WHOLE and float(value) % 1):
        kind = "whole" if name in WHOLE else "finite"
        raise ValueError(f"`{name}` is {value!r}; it must be a {kind} number of at least 0.")


@dataclass(frozen=True)
class FilterSettings:
    """
    Settings of the safety filter. The defaults are ours; ``predecessor`` has those of the authors' earlier filter.

    :param basis_degree: Degree ``n`` of the polynomials; ``m = n - 5``
    :param samples: Number ``S`` of sampled times
    :param penalty: ``rho``, the penalty of violated constraints, in the first iteration and from ``penalty_iterations`` on. It
        grows by the same factor in each iteration: easy violations are repaired smoothly, the others with more force.
    :param penalty_iterations: Number of iterations in which the penalty grows
    :param anchor: ``w_a``, the weight of the distance to the proposal
    :param smoothing: ``tau`` in s^4, the weight of the acceleration of the change to the proposal
    :param majorization: ``kappa``: the step is damped for this many simultaneously active constraints; shared majorizer only
    :param momentum: ``beta``, from 0 to below 1
    :param boost: ``nu``: increases the force of contacts that are short in time
    :param speed_weight: ``s_v`` in s, the weight of the speed constraints
    :param acceleration_weight: ``s_a`` in s^2, the weight of the acceleration constraints
    :param margin: Margin added to the required distances, in meters, in the first iteration and from ``margin_iterations`` on
    :param margin_iterations: Number of iterations in which the margin shrinks
    :param border: Margin to the border of the workspace, in meters
    :param speed_share: Fraction of the largest speed that the filter aims at
    :param acceleration_share: Fraction of the largest acceleration that the filter aims at
    :param max_iterations: Largest number of iterations for a problem
    :param block: Iterations between two checks of the deadline and of the certificate. Certified problems leave the batch.
    :param push: ``"chords"``: distances between straight lines from sample to sample; ``"samples"``: at the samples only
    :param majorizer: ``"shared"``: one matrix for all robots; ``"exact"``: the quadratic program of all robots together,
        in which inactive constraints damp the step, too
    :param metric: Distance to the proposal. ``"modal"``: mean square distance and smoothness; ``"coefficients"``: sum of
        squared differences of Bernstein coefficients
    :raises ValueError: If a name is unknown or a number is out of its range.
    """

    basis_degree: int = 12
    samples: int = 64
    penalty: tuple[float, float] = (4.0, 40.0)
    penalty_iterations: int = 40
    anchor: float = 1.0
    smoothing: float = 0.5
    majorization: float = 2.0
    momentum: float = 0.7
    boost: float = 0.5
    speed_weight: float = 0.5
    acceleration_weight: float = 0.5
    margin: tuple[float, float] = (0.10, 0.03)
    margin_iterations: int = 80
    border: float = 0.03
    speed_share: float = 0.95
    acceleration_share: float = 0.92
    max_iterations: int = 160
    block: int = 5
    push: str = "chords"
    majorizer: str = "shared"
    metric: str = "modal"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; it must be one of {', '.join(map(repr, choices))}.")
        for name in ("penalty", "margin"):
            pair = getattr(self, name)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(
                    f"`{name}` is {pair}; it must be two numbers: the first value, and the value from `{name}_iterations` on."
                )
            for value in pair:
                _check_number(name, value)
            object.__setattr__(self, name, tuple(pair))  # YAML has lists
        for field in fields(self):
            if field.name not in (*CHOICES, "penalty", "margin"):
                _check_number(field.name, getattr(self, field.name))
        for name in ("speed_share", "acceleration_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be above 0 and at most 1.")
        for name in ("penalty_iterations", "anchor", "majorization", "block", "margin_iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be above 0.")
        if min(self.penalty) <= 0:
            raise ValueError(f"`penalty` is {self.penalty}; both must be above 0.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` is {self.momentum}; it must be from 0 to below 1.")

    def penalty_at(self, k: int) -> float:
        """``rho`` of an iteration."""
        first, last = self.penalty
        return float(first * (last / first) ** min(k / self.penalty_iterations, 1.0))

    def at(self, k: int) -> tuple[float, float]:
        """``rho`` of an iteration, and the margin of the next one."""
        return self.penalty_at(k), self.margin_at(k + 1)

    def margin_at(self, k: int) -> float:
        """Margin of an iteration, in meters."""
        first, last = self.margin
        return first + (last - first) * min(k / self.margin_iterations, 1.0)

    @classmethod
    def predecessor(cls, **changes: Any) -> FilterSettings:
        """
        The filter that the authors published before (Swarm-Gen), for comparison: augmented Lagrangian on samples, with all
        constraints in one quadratic program, the distance to the proposal in Bernstein coefficients, and no margin.

        Its sums over samples are means here, so both weights are divided by the number of samples. The published filter had no
        obstacles, and its speed and acceleration constraints were disabled; here all are enabled.

        :param changes: Settings to change, for instance ``max_iterations=15``, the number it was trained with
        """
        samples = changes.get("samples", 50)
        settings: dict[str, Any] = {
            "basis_degree": 10,
            "samples": samples,
            "penalty": (1.1, 1.1),
            "anchor": 1 / samples,
            "momentum": 0.0,
            "boost": 0.0,
            "speed_weight": 1.0,
            "acceleration_weight": 1.0,
            "margin": (0.0, 0.0),
            "border": 0.0,
            "speed_share": 1.0,
            "acceleration_share": 1.0,
            "max_iterations": 100,
            "push": "samples",
            "majorizer": "exact",
            "metric": "coefficients",
        }
        return cls(**{**settings, **changes})
