"""Two goals, of which a random one is closed: a task in which unimodal policies fail."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Position of the openings in the wall (+-), and half of their width.
OPENING, HALF_WIDTH = 0.5, 0.25
#: Name of a goal by the sign of its position.
NAMES = {-1: "left", 1: "right"}
#: Size of an image in pixels, and the visible region: (left, right, bottom, top).
PICTURE, VIEW = 240, (-1.2, 1.2, -0.4, 1.6)
WHITE, WALL, AGENT = (255, 255, 255), (70, 70, 80), (40, 90, 200)
CLOSED, OPEN, PATH = (205, 205, 205), (60, 160, 80), (220, 120, 30)


class TwoGoals(gym.Env[np.ndarray, np.ndarray]):
    """
    Two goals lie behind a wall with two openings. In each episode a random one is closed; the observation does not show which.

    An action, ``Box(-1, 1, (1,))``, is the position at the wall to which the agent moves, in one step::

        -1       -0.75        -0.25        0.25        0.75        1
         |  wall   |  left goal  |    wall    | right goal |  wall  |

    - At the wall, the episode ends with reward 0.
    - At the open goal, the episode ends with success and reward 1.
    - At the closed goal, the agent returns with reward 0 and tries again. After ``attempts`` attempts the episode is
      truncated.

    The observation, ``Box(0, 1, (1,))``, is always 1. A policy without memory cannot know which goal it has tried, so it must
    be random.

    **Motivation.** If every goal can be reached, a Gaussian policy can commit to one of them and is optimal. Here the optimal
    return requires both goals. Let a policy move left with probability ``l``, right with ``r``, and to the wall otherwise. Its
    return, the probability of success, is::

        J(l, r) = (l (1 - r^n) / (1 - r) + r (1 - l^n) / (1 - l)) / 2,     n attempts

    The only maximum is ``1 - 2^-n`` at ``l = r = 1/2``: 0.996 with 8 attempts. A unimodal policy chooses one goal and reaches
    at most 1/2. A Gaussian that is wide enough for both goals often hits the wall: for no mean and standard deviation the
    return exceeds 1/2, with squashing (SAC) or with clipping (see ``success_probability``). The openings lie inside of the
    action range, because a squashed Gaussian can have two modes at the ends of the range.

    **Limitations.** The task is partially observable: a policy with memory needs no randomness, because it can try the other
    goal next. The observation has no noise, because a policy could use it as its source of randomness. An attempt is a single
    action: over many small steps, the noise of a Gaussian would choose a side first, and the mean could follow.

    ``info`` has ``is_success``, ``goal`` (the goal that was tried, ``"left"`` or ``"right"``, closed or not; None at the wall)
    and ``open_goal``, which is hidden from the policy.

    :param attempts: Number of attempts in an episode, at least 1
    :param render_mode: ``"rgb_array"``: ``render`` returns an image, ``(240, 240, 3)``; None: no rendering
    :raises ValueError: If an argument is out of its range, or an action is not finite.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (no class variable in Gymnasium's own class)

    def __init__(self, attempts: int = 8, render_mode: str | None = None) -> None:
        if attempts < 1:
            raise ValueError(f"`attempts` is {attempts}; it must be at least 1.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` is {render_mode!r}; it must be 'rgb_array' or None.")
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.attempts, self.render_mode = attempts, render_mode
        self.open_goal = 1
        #: Actions of this episode.
        self.places: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Start an episode.

        :param seed: Random seed
        :param options: ``{"open_goal": "left"}`` or ``"right"``: the open goal, instead of a random one
        :return: The observation, and ``info`` with ``open_goal``
        :raises ValueError: If ``open_goal`` has another value, or there are other options.
        """
        super().reset(seed=seed)
        self.open_goal = int(2 * self.np_random.integers(2) - 1)
        if unknown := set(options or {}) - {"open_goal"}:
            raise ValueError(f"The options of `reset` are {', '.join(sorted(map(str, unknown)))}; expected `open_goal` only.")
        if options and "open_goal" in options:
            signs = {name: sign for sign, name in NAMES.items()}
            if options["open_goal"] not in signs:
                raise ValueError(f"`open_goal` is {options['open_goal']!r}; it must be 'left' or 'right'.")
            self.open_goal = signs[options["open_goal"]]
        self.places = []
        return self._observe(), {"open_goal": NAMES[self.open_goal]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        Make one attempt.

        :param action: Position at the wall, ``(1,)`` in [-1, 1]; actions outside of this range reach the wall
        """
        place = float(np.asarray(action).reshape(()))
        if not np.isfinite(place):
            raise ValueError(f"The action is {place}; it must be a finite number.")
        self.places.append(place)
        goal = goal_at(place)
        success = goal == self.open_goal
        terminated = success or goal == 0
        truncated = not terminated and len(self.places) >= self.attempts
        info = {"is_success": success, "goal": NAMES.get(goal), "open_goal": NAMES[self.open_goal]}
        return self._observe(), float(success), terminated, truncated, info

    def _observe(self) -> np.ndarray:
        return np.ones(1, dtype=np.float32)

    def render(self) -> np.ndarray | None:
        """Image from above, with the paths of this episode: ``(240, 240, 3)`` of uint8."""
        if self.render_mode is None:
            return None
        left, right, bottom, top = VIEW
        x = np.linspace(left, right, PICTURE)[None, :]
        y = np.linspace(top, bottom, PICTURE)[:, None]
        picture = np.full((PICTURE, PICTURE, 3), WHITE, dtype=np.uint8)
        for sign in NAMES:
            picture[np.hypot(x - sign * OPENING, y - 1.25) < 0.17] = OPEN if sign == self.open_goal else CLOSED
        for place in self.places:
            # To the goal through an opening, or else to the wall.
            length = 1.25 if goal_at(place) else 0.94
            along = np.clip((x * place + y) / (place**2 + 1), 0, length)
            picture[np.hypot(x - along * place, y - along) < 0.015] = PATH
        wall = (np.abs(y - 1) < 0.06) & (np.abs(np.abs(x) - OPENING) > HALF_WIDTH)
        picture[wall] = WALL
        picture[np.hypot(x, y) < 0.08] = AGENT
        return picture


def goal_at(place: float) -> int:
    """
    The goal behind a position at the wall.

    :param place: The position
    :return: -1: the left goal, 1: the right goal, 0: the wall
    """
    return int(np.sign(place)) if abs(abs(place) - OPENING) <= HALF_WIDTH else 0


def success_probability(left: np.ndarray | float, right: np.ndarray | float, attempts: int = 8) -> np.ndarray:
    """
    The return of a policy without memory, ``J(l, r)`` above.

    :param left: Probability that an action leads to the left goal
    :param right: Probability that it leads to the right goal; together at most 1
    :param attempts: Number of attempts in an episode
    :return: Probability of success, of the broadcast shape
    """

    # (1 - r^n) / (1 - r) as a sum, which is also defined for r = 1.
    def tries(other: np.ndarray | float) -> np.ndarray:
        return np.sum([np.asarray(other, dtype=float) ** k for k in range(attempts)], axis=0)  # type: ignore[no-any-return]

    return (left * tries(right) + right * tries(left)) / 2
