"""Wrapper for learning from images: rendered frames replace the observations."""

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from torch.nn import functional as F


class PixelObservation(gym.Wrapper[np.ndarray, Any, Any, Any]):
    """
    Observe a stack of rendered frames and repeat each action, as is usual for dm_control.

    Environments of dm_control work in any render mode; others need ``render_mode="rgb_array"``. MuJoCo without a display needs
    ``MUJOCO_GL=egl``.

    :param env: The environment; its own observations are not used
    :param size: Height and width of a frame, in pixels
    :param frame_stack: Number of frames in an observation, channels first and oldest first: uint8 of shape
        ``(3 * frame_stack, size, size)``. An episode starts with copies of its first frame.
    :param action_repeat: Number of steps for which each action is executed; their rewards are summed
    :param camera: Camera of a dm_control environment, by index or name
    :raises ValueError: If a size or number is below 1, or the environment cannot be rendered, or not by another camera.
    """

    def __init__(
        self, env: gym.Env[Any, Any], size: int = 84, frame_stack: int = 3, action_repeat: int = 2, camera: int | str = 0
    ) -> None:
        super().__init__(env)
        for name, value in (("size", size), ("frame_stack", frame_stack), ("action_repeat", action_repeat)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        #: The simulation behind an environment of dm_control; None for others.
        self.physics: Any = getattr(env.unwrapped, "physics", None)
        if self.physics is None and env.render_mode != "rgb_array":
            raise ValueError(
                f"{env.unwrapped} has the render mode {env.render_mode!r}; it must be 'rgb_array': make it with "
                "render_mode='rgb_array' (in a configuration: `env_kwargs: {render_mode: rgb_array}`)."
            )
        if self.physics is None and camera != 0:
            raise ValueError(
                f"`camera` is {camera!r}, but {env.unwrapped} is not an environment of dm_control: choose the camera where "
                "the environment is made."
            )
        self.size, self.action_repeat, self.camera = size, action_repeat, camera
        self.frames: deque[np.ndarray] = deque(maxlen=frame_stack)
        self.observation_space = spaces.Box(0, 255, (3 * frame_stack, size, size), dtype=np.uint8)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        info = self.env.reset(**kwargs)[1]
        assert self.frames.maxlen is not None
        self.frames.extend([self.frame()] * self.frames.maxlen)
        return np.concatenate(self.frames), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self.action_repeat):
            _, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        self.frames.append(self.frame())
        return np.concatenate(self.frames), total, terminated, truncated, info

    def frame(self) -> np.ndarray:
        """Render the environment: uint8, ``(3, size, size)``."""
        if self.physics is not None:
            picture = self.physics.render(height=self.size, width=self.size, camera_id=self.camera)
        else:
            picture = self.env.render()
        frame = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
        if frame.shape[1:] == (self.size, self.size):
            return frame
        smaller = F.interpolate(th.from_numpy(frame)[None].float(), (self.size, self.size), mode="area")
        return smaller[0].round().byte().numpy()
