"""A plane in the space of actions, for actions of more than two dimensions."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np


class Plane(NamedTuple):
    """
    A plane in the space of actions, or a line if actions have one dimension.

    :param origin: A point of the plane, ``(D,)``
    :param directions: Orthonormal directions, ``(2, D)``, or ``(1, 1)``
    :param labels: Names of the two directions, for the axes
    :param is_slice: Whether the plane is smaller than the space: functions of actions are drawn on it, and points beside it
        are projected
    """

    origin: np.ndarray
    directions: np.ndarray
    labels: tuple[str, ...]
    is_slice: bool = False

    def project(self, points: np.ndarray) -> np.ndarray:
        """
        :param points: ``(..., D)``
        :return: Their coordinates in the plane, ``(..., 2)``, or ``(..., 1)``
        """
        projected: np.ndarray = (points - self.origin) @ self.directions.T
        return projected

    def lift(self, coordinates: np.ndarray) -> np.ndarray:
        """
        :param coordinates: ``(..., 2)``, or ``(..., 1)``
        :return: The points of the plane with these coordinates, ``(..., D)``
        """
        lifted: np.ndarray = self.origin + coordinates @ self.directions
        return lifted


def make_plane(actions: np.ndarray, projection: Literal["first", "pca"] | Sequence[int] = "first") -> Plane:
    """
    Choose the plane of a picture.

    :param actions: Samples, ``(n, D)``
    :param projection: For more than two dimensions: ``"first"``: the first two; two numbers of dimensions, from 0; ``"pca"``:
        the two directions in which the samples vary most. The plane passes through the mean of the samples.
    :return: The plane; with one or two dimensions, the whole space
    :raises ValueError: If the projection is none of these.
    """
    n_dims = actions.shape[1]
    chosen = [0, 1] if projection in ("first", "pca") else projection
    if isinstance(chosen, str) or not _are_two_dimensions(chosen, n_dims):
        raise ValueError(
            f"`projection` is {projection!r}; it must be 'first', 'pca', or two different dimensions from 0 to {n_dims - 1}."
        )
    labels: tuple[str, ...]
    if n_dims <= 2:
        labels = ("action",) if n_dims == 1 else ("action 1", "action 2")
        return Plane(np.zeros(n_dims), np.eye(n_dims), labels)
    mean = actions.mean(axis=0)
    if projection == "pca":
        _, spreads, directions = np.linalg.svd(actions - mean, full_matrices=False)
        shares = spreads**2 / max(float((spreads**2).sum()), 1e-30)
        labels = tuple(f"component {i + 1} of {n_dims} ({shares[i]:.0%} of the variance)" for i in (0, 1))
        return Plane(mean, directions[:2], labels, is_slice=True)
    directions = np.eye(n_dims)[list(chosen)]
    # The coordinates are the actions themselves, not their distance from the mean.
    origin = mean - (mean @ directions.T) @ directions
    return Plane(origin, directions, tuple(f"action {i + 1} of {n_dims}" for i in chosen), is_slice=True)


def _are_two_dimensions(chosen: Sequence[int], n_dims: int) -> bool:
    return len(chosen) == len(set(chosen)) == 2 and all(0 <= i < max(n_dims, 2) for i in chosen)
