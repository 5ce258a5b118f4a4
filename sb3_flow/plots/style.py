"""The style of all pictures: colors and axes."""

from typing import Any

from sb3_flow.common.optional import require

#: Colors that readers with color vision deficiency can distinguish (Okabe and Ito, 2008). In gray, blue and vermilion are
#: dark, orange and sky blue light.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#0072B2", "#D55E00", "#CC79A7"),
)
GRAY = "#8C8C8C"
#: Color map of values: its lightness grows with the value, and it needs no red or green.
VALUES = "cividis"
#: Name of the axis of one action.
ACTION = "action, scaled to [-1, 1]"


def pyplot() -> Any:
    """
    :return: ``matplotlib.pyplot``
    :raises ImportError: If matplotlib is not installed; the message has the command that installs it.
    """
    return require("matplotlib.pyplot", "plots", "A plot")


def new_axes(axes: Any, size: tuple[float, float]) -> Any:
    """
    :param axes: Axes, which are returned; None: new axes in a new figure
    :param size: Width and height of a new figure in inches
    :return: Axes
    """
    if axes is not None:
        return axes
    return pyplot().subplots(figsize=size, layout="constrained")[1]


def legend(axes: Any, **options: Any) -> None:
    """
    Add a small legend with a white background.

    :param axes: Axes
    :param options: Arguments of matplotlib's ``legend``
    """
    handles = axes.legend(**{"loc": "upper left", "fontsize": "small", "framealpha": 0.9, **options}).legend_handles
    for handle in handles:
        handle.set_alpha(1.0)
