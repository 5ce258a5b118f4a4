"""
Pictures of models: flows, critics, actions during training, learning curves, films of episodes.

Two lines draw a trained model::

    from sb3_flow.plots import plot_flow

    plot_flow(model, observation).figure.savefig("flow.png")

All functions draw on new axes, or on those that are passed, and return them. Actions are in the units of the networks,
[-1, 1]. Actions of more than two dimensions are projected to a plane, see ``Plane``. The colors are those of Okabe and Ito
(2008), which readers with color vision deficiency can distinguish; lines also differ in style, and markers in shape, so that
pictures can be printed in gray.
"""

from sb3_flow.plots.action_history import ActionHistory, plot_action_history
from sb3_flow.plots.curves import plot_learning_curves
from sb3_flow.plots.films import caption, film, write_gif
from sb3_flow.plots.flows import plot_flow, plot_velocity
from sb3_flow.plots.plane import Plane
from sb3_flow.plots.sliders import sliders
from sb3_flow.plots.trace import Trace, trace_flow
from sb3_flow.plots.values import plot_values

__all__ = [
    "ActionHistory",
    "Plane",
    "Trace",
    "caption",
    "film",
    "plot_action_history",
    "plot_flow",
    "plot_learning_curves",
    "plot_values",
    "plot_velocity",
    "sliders",
    "trace_flow",
    "write_gif",
]
