"""The constants of the safety filter: ours, and those of the filter that it goes back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: What may be chosen by name, and the names.
CHOICES = {"push": ("chords", "samples"), "majoriser": ("shared", "exact"), "metric": ("modal", "coefficients")}


@dataclass(frozen=True)
class FilterSettings:
    """
    The constants of the safety filter. The defaults are ours; ``predecessor`` has those of the group's earlier filter.

    :param basis_degree: Degree ``n`` of the polynomials; ``m = n - 5``
    :param samples: Number ``S`` of times at which, and between which, constraints are looked at
    :param penalty: ``rho``, the weight of a push, at the beginning and from ``penalty_iterations`` on. It grows by the same
        factor in each iteration: what little pushing repairs stays smooth, and what it does not is pushed harder.
    :param penalty_iterations: Iterations in which the penalty grows
    :param anchor: ``w_a``, the weight of the distance from the proposal
    :param smoothing: ``tau`` in s^4: how much more departures from the proposal cost that are less smooth
    :param majorisation: ``kappa``: for how many rows that push at once the step is damped; only of the shared majoriser
    :param momentum: ``beta``, from 0 to below 1
    :param boost: ``nu``: how much stronger contacts push that are short in time
    :param speed_weight: ``s_v`` in s, the weight of the rows of speeds
    :param acceleration_weight: ``s_a`` in s^2, the weight of the rows of accelerations
    :param margin: What is added to the distances to push to, in metres, at the beginning and from ``margin_iterations`` on
    :param margin_iterations: Iterations in which the margin shrinks
    :param border: The same for the border of the workspace, in metres
    :param speed_share: The share of the largest speed to push to
    :param acceleration_share: The share of the largest acceleration to push to
    :param max_iterations: Iterations after which a problem is given up
    :param block: Iterations between two looks at the deadline and at which plans are certified, after which those leave
    :param push: ``"chords"``: distances between straight lines from sample to sample; ``"samples"``: at the samples alone
    :param majoriser: ``"shared"``: one matrix for all robots; ``"exact"``: the quadratic programme of all robots together,
        in which every row brakes whether it pushes or not
    :param metric: Distance from the proposal. ``"modal"``: mean square distance and smoothness; ``"coefficients"``: sum of
        squared differences of Bernstein coefficients
    :raises ValueError: If a name is none of these, or a number out of its range.
    """

    basis_degree: int = 12
    samples: int = 64
    penalty: tuple[float, float] = (4.0, 40.0)
    penalty_iterations: int = 40
    anchor: float = 1.0
    smoothing: float = 0.5
    majorisation: float = 2.0
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
    majoriser: str = "shared"
    metric: str = "modal"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; it must be one of {', '.join(map(repr, choices))}.")
        for name in ("penalty", "margin"):
            pair = getattr(self, name)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(f"`{name}` is {pair}; it must be two numbers: at first, and from `{name}_iterations` on.")
            object.__setattr__(self, name, tuple(pair))  # lists come from files
        for name in ("penalty_iterations", "anchor", "majorisation", "block", "margin_iterations"):
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

    def margin_at(self, k: int) -> float:
        """What is added to distances in an iteration, in metres."""
        first, last = self.margin
        return first + (last - first) * min(k / self.margin_iterations, 1.0)

    @classmethod
    def predecessor(cls, **changes: Any) -> FilterSettings:
        """
        The filter that the group published before (Swarm-Gen), to compare with: augmented Lagrangian on samples, with all
        rows in one quadratic programme, the distance from the proposal in Bernstein coefficients, and no margin.

        Its sums over samples are means here, so that both weights are by the number of samples. It had no obstacles, and its
        rows of speed and acceleration were not in use; here they are.

        :param changes: Settings that are to be different, ``max_iterations=15`` for those that it was trained with, say
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
            "majoriser": "exact",
            "metric": "coefficients",
        }
        return cls(**{**settings, **changes})
