"""Pictures with sliders in a notebook, and without ipywidgets as a row of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sb3_flow.plots.style import pyplot

#: Largest number of pictures in a row.
ROW = 4


def sliders(draw: Callable[..., Any], size: tuple[float, float] = (4.0, 3.4), **choices: Sequence[Any]) -> Any:
    """
    Draw a picture with a slider for each choice. Without ipywidgets, draw a row of up to four pictures: for values of the
    first choice from its first to its last one, at the middle value of all other choices.

    :param draw: Draws on ``axes``, its first argument, for a value of each choice, which are passed by name
    :param size: Width and height of one picture in inches
    :param choices: Values of each choice, by its name
    :return: The widget, or the figure
    :raises ValueError: If there are no choices, or one has no values.
    :raises ImportError: If matplotlib is not installed.
    """
    if not choices or not all(len(values) for values in choices.values()):
        raise ValueError("Pass one or more choices with their values, such as n_steps=[1, 2, 5, 10].")
    try:
        import ipywidgets
    except ImportError:
        return _row(draw, size, choices)
    return _widget(ipywidgets, draw, size, choices)


def _row(draw: Callable[..., Any], size: tuple[float, float], choices: dict[str, Sequence[Any]]) -> Any:
    middle = {name: values[len(values) // 2] for name, values in choices.items()}
    name, values = next(iter(choices.items()))
    n = min(len(values), ROW)
    shown = [values[round(i * (len(values) - 1) / max(n - 1, 1))] for i in range(n)]
    figure, axes = pyplot().subplots(1, n, figsize=(size[0] * n, size[1]), squeeze=False, layout="constrained")
    for panel, value in zip(axes[0], shown, strict=True):
        draw(panel, **{**middle, name: value})
        title = ", ".join(f"{key} = {part}" for key, part in {**middle, name: value}.items())
        panel.set_title("\n".join(filter(None, (panel.get_title(), title))), fontsize="medium")
    return figure


def _widget(ipywidgets: Any, draw: Callable[..., Any], size: tuple[float, float], choices: dict[str, Sequence[Any]]) -> Any:
    def show(**values: Any) -> None:
        figure, axes = pyplot().subplots(figsize=size, layout="constrained")
        draw(axes, **values)
        pyplot().show()
        pyplot().close(figure)

    controls = {
        name: ipywidgets.SelectionSlider(options=list(values), value=values[len(values) // 2], continuous_update=False)
        for name, values in choices.items()
    }
    return ipywidgets.interactive(show, **controls)
