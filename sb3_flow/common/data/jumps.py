"""Detection of jumps of observations inside of episodes, where an end may be missing."""

import numpy as np

from sb3_flow.common.data.columns import Observations, parts

#: A step above this multiple of a quantile of all steps is a jump.
USUAL = 8.0, 0.95
#: The same if episodes are so short that more than 5 % of the steps are jumps. Quick movements exceed it, too: only jumps that
#: are alone count, and only if they are more than this share of the steps.
SHORT_EPISODES, RARE = (4.0, 0.75), 0.025
#: Observations with larger rows are not checked.
VECTOR_BYTES = 2**16


def jumps_inside(observations: Observations, inside: np.ndarray) -> str | None:
    """
    Find rows inside of episodes after which most coordinates of the observations jump, as at a reset.

    :param observations: ``(N, *shape)``, or a dictionary of these
    :param inside: Whether the next row is of the same episode, ``(N,)`` of bool
    :return: A message with the rows, or None if there are none, or the observations are images
    """
    inside = inside[:-1]
    jumps = _jumps(observations, inside, *USUAL)
    if not jumps.any():
        jumps = _jumps(observations, inside, *SHORT_EPISODES)
        jumps &= ~(np.append(jumps[1:], False) | np.append(False, jumps[:-1]))
        jumps &= np.count_nonzero(jumps) > RARE * np.count_nonzero(inside)
    rows = np.flatnonzero(jumps)
    if len(rows) == 0:
        return None
    more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
    return f"the observations jump inside of episodes, after row {', '.join(map(str, rows[:5]))}{more}"


def _jumps(observations: Observations, inside: np.ndarray, multiple: float, quantile: float) -> np.ndarray:
    """The rows after which most coordinates change by more than a multiple of a quantile of their changes."""
    jumping, coordinates = np.zeros(len(inside)), 0
    for column in parts(observations).values():
        if column.ndim > 2 or column.nbytes > VECTOR_BYTES * len(column) or not inside.any():
            continue
        steps = np.abs(np.diff(column.reshape(len(column), -1).astype(np.float64), axis=0))
        usual = np.quantile(steps[inside], quantile, axis=0)
        tells = np.full(len(usual), quantile == USUAL[1]) | (usual > 0)  # what moves seldom exceeds any multiple of 0
        jumping += (steps > multiple * usual)[:, tells].sum(axis=1)
        coordinates += int(tells.sum())
    found: np.ndarray = inside & (jumping > coordinates / 2)
    return found
