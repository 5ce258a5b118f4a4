"""Measures of Push-T that papers report in addition to success."""

from typing import Any

import gymnasium as gym


class PushTMeasures(gym.Wrapper[Any, Any, Any, Any]):
    """
    Add ``info["measures"]``: ``score``, the largest reward of the episode so far, where the reward is coverage / 0.95, at most
    1; and ``coverage``, the fraction of the goal that is covered now. Evaluations of ``sb3-flow train`` record the values of
    the last step.

    :param env: ``gym_pusht/PushT-v0``
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.score = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.score = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.score = max(self.score, float(reward))
        info = {**info, "measures": {"score": self.score, "coverage": float(info["coverage"])}}
        return observation, reward, terminated, truncated, info
