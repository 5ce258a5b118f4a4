"""Detection of jumps of observations inside of episodes, where an end may be missing."""

import numpy as np

from sb3_flow.common.data.columns import Observations, parts

#: A step above this multiple of the 95 % quantile of all steps is a jump.
JUMP = 8.0
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
    jumping, coordinates = np.zeros(len(inside)), 0
    for column in parts(observations).values():
        if column.ndim > 2 or column.nbytes > VECTOR_BYTES * len(column) or not inside.any():
            continue
        steps = np.abs(np.diff(column.reshape(len(column), -1).astype(np.float64), axis=0))
        usual = np.quantile(steps[inside], 0.95, axis=0)
        jumping += (steps > JUMP * usual).sum(axis=1)
        coordinates += steps.shape[1]
    rows = np.flatnonzero(inside & (jumping > coordinates / 2)) if coordinates else np.zeros(0, dtype=np.int64)
    if len(rows) == 0:
        return None
    more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
    return f"the observations jump inside of episodes, after row {', '.join(map(str, rows[:5]))}{more}"
