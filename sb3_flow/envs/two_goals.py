"""Two goals of which one is closed, nobody knows which: a task for policies that can choose between two ways."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Where the openings in the wall are, and half of their width.
OPENING, HALF_WIDTH = 0.5, 0.25
#: By the sign of an action, and so by the sign of the goal.
NAMES = {-1: "left", 1: "right"}
#: Size of a picture in pixels, and the part of the plane that it shows: (left, right, bottom, top).
PICTURE, VIEW = 240, (-1.2, 1.2, -0.4, 1.6)
WHITE, WALL, AGENT = (255, 255, 255), (70, 70, 80), (40, 90, 200)
CLOSED, OPEN, PATH = (205, 205, 205), (60, 160, 80), (220, 120, 30)


class TwoGoals(gym.Env[np.ndarray, np.ndarray]):
    """
    Behind a wall with two openings there are two goals. In each episode one is closed, at random, and looks as the other.

    An action, ``Box(-1, 1, (1,))``, is the place at the wall that the agent walks to, in one step::

        -1       -0.75        -0.25        0.25        0.75        1
         |  wall   |  left goal  |    wall    | right goal |  wall  |

    - At the wall it is hurt: the episode ends with reward 0.
    - At the open goal it has succeeded: the episode ends with reward 1.
    - At the closed goal it walks back, with reward 0, and may try again: ``attempts`` times in all, then the episode is
      truncated.

    The observation, ``Box(0, 1, (1,))``, is always 1. So a policy without memory cannot know where it has been, and it must
    not always do the same.

    **Why it is made so.** Where a goal can always be reached, a Gaussian policy need only decide for one of them, and is as
    good as any other; two equal goals alone show nothing. Here the return itself asks for both. Let a policy go left with
    probability ``l``, right with ``r``, and against the wall otherwise. Then the probability of success, its return, is::

        J(l, r) = (l (1 - r^n) / (1 - r) + r (1 - l^n) / (1 - l)) / 2,     n attempts

    which has its only maximum, ``1 - 2^-n``, at ``l = r = 1/2``: 0.996 with 8 attempts. A policy with one mode chooses one
    goal and has 1/2, whichever it is and however well it walks. A Gaussian that is wide enough for both goals hits the wall
    between them, or beside them: no mean and no standard deviation has more than 1/2, with squashing (SAC) or with clipping
    (see ``success_probability``). The openings lie inside of the range of actions because a squashed Gaussian can have two
    modes after all, at its ends.

    **What it does not show.** The world is hidden, so that a policy with memory needs no randomness: it tries the other goal
    next. Noise in the observation would serve as well as noise in the policy, which is why there is none. And one action is
    the whole way: over many small steps, a Gaussian's noise would choose a side in the first, and the mean follow it.

    ``info`` has ``is_success``, ``goal`` (the one that was reached, ``"left"`` or ``"right"``, closed or not; None at the
    wall) and ``open_goal``, which nobody who acts may look at.

    :param attempts: Number of attempts in an episode, at least 1
    :param render_mode: ``"rgb_array"``: ``render`` returns a picture, ``(240, 240, 3)``; None: it returns nothing
    :raises ValueError: If an argument is none of these, or an action is not a number.
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
        #: Where the agent went in this episode.
        self.places: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Begin an episode.

        :param seed: Seed of the random numbers from here on
        :param options: ``{"open_goal": "left"}`` or ``"right"``: which goal is open, instead of a random one
        :return: The observation, and ``open_goal``
        :raises ValueError: If the option is neither.
        """
        super().reset(seed=seed)
        self.open_goal = int(2 * self.np_random.integers(2) - 1)
        if options and "open_goal" in options:
            signs = {name: sign for sign, name in NAMES.items()}
            if options["open_goal"] not in signs:
                raise ValueError(f"`open_goal` is {options['open_goal']!r}; it must be 'left' or 'right'.")
            self.open_goal = signs[options["open_goal"]]
        self.places = []
        return self._observe(), {"open_goal": NAMES[self.open_goal]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        One attempt.

        :param action: Where to walk, ``(1,)`` in [-1, 1]; what lies outside is at the wall
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
        """The room from above, with the paths of this episode: ``(240, 240, 3)`` in 0 to 255."""
        if self.render_mode is None:
            return None
        left, right, bottom, top = VIEW
        x = np.linspace(left, right, PICTURE)[None, :]
        y = np.linspace(top, bottom, PICTURE)[:, None]
        picture = np.full((PICTURE, PICTURE, 3), WHITE, dtype=np.uint8)
        for sign in NAMES:
            picture[np.hypot(x - sign * OPENING, y - 1.25) < 0.17] = OPEN if sign == self.open_goal else CLOSED
        for place in self.places:
            # Through an opening as far as its goal, and else to the wall.
            length = 1.25 if goal_at(place) else 0.94
            along = np.clip((x * place + y) / (place**2 + 1), 0, length)
            picture[np.hypot(x - along * place, y - along) < 0.015] = PATH
        wall = (np.abs(y - 1) < 0.06) & (np.abs(np.abs(x) - OPENING) > HALF_WIDTH)
        picture[wall] = WALL
        picture[np.hypot(x, y) < 0.08] = AGENT
        return picture


def goal_at(place: float) -> int:
    """
    What lies at a place of the wall.

    :param place: The place
    :return: -1: the left goal, 1: the right one, 0: the wall
    """
    return int(np.sign(place)) if abs(abs(place) - OPENING) <= HALF_WIDTH else 0


def success_probability(left: np.ndarray | float, right: np.ndarray | float, attempts: int = 8) -> np.ndarray:
    """
    The return of every policy without memory, ``J(l, r)`` above.

    :param left: Probability that an action leads to the left goal
    :param right: Probability that it leads to the right one; together at most 1
    :param attempts: Number of attempts in an episode
    :return: Probability of success, of the shape that both have together
    """

    # (1 - r^n) / (1 - r) as the sum that it is, which holds for r = 1, too.
    def tries(other: np.ndarray | float) -> np.ndarray:
        return np.sum([np.asarray(other, dtype=float) ** k for k in range(attempts)], axis=0)  # type: ignore[no-any-return]

    return (left * tries(right) + right * tries(left)) / 2
