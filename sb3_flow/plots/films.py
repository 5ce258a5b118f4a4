"""Films of episodes, as GIF files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn

#: Most frames per second of a GIF file.
FASTEST = 50.0
#: Height of a line of text in pixels.
LINE = 16


def film(
    model: Any,
    env: gym.Env[Any, Any],
    file: str | Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = False,
    every: int = 1,
    rate: float = 15.0,
    rest: float = 1.0,
    legend: Mapping[str, str] | None = None,
) -> Path:
    """
    Run episodes and write a film. Below each frame are the episode, the step, and the return so far.

    :param model: A model or policy with ``predict``, also of Stable-Baselines3. ``VecNormalize`` of its environment applies.
    :param env: Its environment, without ``VecNormalize``, made with ``render_mode="rgb_array"``, or one that renders images
        without it, as OGBench's do
    :param file: The GIF file
    :param episodes: Number of episodes, at least 1
    :param seed: Seed of the first episode; each following one adds 1
    :param deterministic: Whether the policy acts without noise
    :param every: Number of steps between frames; the last step of an episode has a frame, too
    :param rate: Frames per second, at most 50
    :param rest: How long the last frame of an episode is shown, in seconds
    :param legend: What the colors in the image mean: meanings by color, such as ``{"#0072B2": "cube"}``
    :return: The file
    :raises ValueError: If the environment does not render images, or a number is below 1.
    :raises ImportError: If Pillow is not installed.
    """
    if env.render_mode not in ("rgb_array", None):
        raise _not_an_image(env)
    for name, value in (("episodes", episodes), ("every", every)):
        if value < 1:
            raise ValueError(f"`{name}` is {value}; it must be at least 1.")
    if not 0 < rate <= FASTEST:
        raise ValueError(f"`rate` is {rate}; it must be above 0 and at most {FASTEST:g}, which GIF files can show.")
    if not rest >= 0:
        raise ValueError(f"`rest` is {rest}; it must be at least 0 seconds.")
    prepare = _as_in_training(model)
    frames, durations = [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        total, step, over = 0.0, 0, False
        state: Any = None
        start = np.ones(1, dtype=bool)
        while True:
            if step % every == 0 or over:
                text = f"episode {episode + 1}, step {step}, return {total:.1f}"
                frames.append(caption(_picture(env), text, legend))
                durations.append(1.0 / rate)
            if over:
                break
            # With an axis for the single environment, as in the state.
            actions, state = model.predict(prepare(_batch_of_one(observation)), state, start, deterministic=deterministic)
            observation, reward, terminated, truncated, _ = env.step(actions[0])
            start, over = np.zeros(1, dtype=bool), terminated or truncated
            total, step = total + float(reward), step + 1
        durations[-1] += rest
    return write_gif(frames, file, durations)


def _as_in_training(model: Any) -> Callable[[Any], Any]:
    """What ``VecNormalize`` of the model's environment does with observations."""
    normalizer = model.get_vec_normalize_env() if getattr(model, "env", None) is not None else None
    if normalizer is None and getattr(model, "trained_normalized", None):
        warn(
            "The model was trained with `VecNormalize`, and has no environment with its statistics: it sees other numbers. "
            "Load it with one: `load(path, env=VecNormalize.load(statistics, venv))`."
        )
    return (lambda observation: observation) if normalizer is None else normalizer.normalize_obs


def _picture(env: gym.Env[Any, Any]) -> np.ndarray:
    picture = np.asarray(env.render())
    if picture.ndim != 3:
        raise _not_an_image(env)
    return picture


def _not_an_image(env: gym.Env[Any, Any]) -> ValueError:
    """The error for an environment that renders no images."""
    return ValueError(f"`env.render_mode` is {env.render_mode!r}; make the environment with render_mode='rgb_array'.")


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.asarray(part)[None] for key, part in observation.items()}
    return np.asarray(observation)[None]


def caption(frame: np.ndarray, text: str, legend: Mapping[str, str] | None = None) -> np.ndarray:
    """
    Add lines of text below an image.

    :param frame: The image, ``(height, width, 3)`` of uint8
    :param text: The first line; lines that are too wide are broken
    :param legend: Meanings by color, each on its own line
    :return: The image with the lines, ``(height + lines, width, 3)`` of uint8
    :raises ImportError: If Pillow is not installed.
    """
    image, drawing, fonts = (require(f"PIL.{name}", "plots", "A film") for name in ("Image", "ImageDraw", "ImageFont"))
    font = fonts.load_default(size=12)
    height, width = frame.shape[:2]
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width - 8 else [*lines, word]
    meanings = list((legend or {}).items())
    picture = image.new("RGB", (width, height + LINE * (len(lines) + len(meanings)) + 4), "white")
    picture.paste(image.fromarray(frame), (0, 0))
    pencil = drawing.Draw(picture)
    for row, line in enumerate(lines):
        pencil.text((4, height + 2 + LINE * row), line, fill="black", font=font)
    for row, (color, meaning) in enumerate(meanings, len(lines)):
        top = height + 2 + LINE * row
        pencil.rectangle((4, top + 3, 14, top + 13), fill=color)
        pencil.text((20, top), meaning, fill="black", font=font)
    return np.asarray(picture)


def write_gif(frames: Sequence[np.ndarray], file: str | Path, durations: Sequence[float] | float) -> Path:
    """
    Write a film that repeats.

    :param frames: Images of one size, ``(height, width, 3)`` of uint8
    :param file: The GIF file
    :param durations: How long each frame is shown, in seconds, or one number for all; at least a fiftieth, or that is shown
    :return: The file
    :raises ValueError: If there are no frames, or not one duration for each.
    :raises ImportError: If Pillow is not installed.
    """
    if not len(frames):
        raise ValueError("There are no frames to write.")
    image = require("PIL.Image", "plots", "A film")
    pictures = [image.fromarray(frame).quantize(256, dither=image.Dither.NONE) for frame in frames]
    times = [durations] * len(frames) if isinstance(durations, (int, float)) else list(durations)
    if len(times) != len(frames) or not all(time > 0 for time in times):
        raise ValueError(f"There are {len(times)} `durations` for {len(frames)} frames; expected one above 0 for each.")
    milliseconds = [max(round(1000 / FASTEST), round(1000 * time)) for time in times]
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, disposal=1)
    return Path(file)
