"""Expert for the point mass: it follows the shortest path through the maze."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from sb3_flow.datasets.collect.expert import Episode, OGBenchExpert, Recorder
from sb3_flow.datasets.registry import Recipe

Cell = tuple[int, int]
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))


class MazeExpert(OGBenchExpert):
    """
    An expert for ``pointmaze-*``.

    ``navigate`` data moves from one random goal to the next; goals are corners, crossings and dead ends. ``stitch`` data
    moves to a goal four cells away and stays there.

    :param recipe: The dataset to collect
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        maze: Any = self.env.unwrapped  # it has methods that gym.Env does not have
        self._maze = maze
        self._cells = free_cells(maze.maze_map)
        self._goals = [cell for cell in self._cells if not is_hallway(maze.maze_map, cell)]

    def play(self) -> Episode:
        """Record one episode."""
        maze, recorder = self._maze, Recorder()
        start, goal = self._draw_task()
        observation, _ = self.env.reset(options={"task_info": {"init_ij": start, "goal_ij": goal}})
        done = False
        while not done:
            position = maze.get_xy()
            subgoal, _ = maze.get_oracle_subgoal(position, maze.cur_goal_xy)
            direction = (subgoal - position) / (np.linalg.norm(subgoal - position) + 1e-6)
            action = np.clip(direction + np.random.normal(0.0, self.recipe.noise, 2), -1.0, 1.0)
            next_observation, _, terminated, truncated, info = self.env.step(action)
            done = terminated or truncated
            recorder.add(observation, action, done, info)
            if info["success"] and self.recipe.dataset_type == "navigate":
                maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(draw(self._goals))))
            observation = next_observation
        return recorder.episode()

    def _draw_task(self) -> tuple[Cell, Cell]:
        start = draw(self._cells)
        if self.recipe.dataset_type == "navigate":
            return start, draw(self._goals)
        near = cells_at(self._maze.maze_map, start, distance=4)
        return start, draw(near) if near else start


def draw(cells: list[Cell]) -> Cell:
    """Sample a cell with numpy's global generator."""
    return cells[np.random.randint(len(cells))]


def free_cells(maze_map: np.ndarray) -> list[Cell]:
    """The cells without a wall, row by row."""
    return [(int(row), int(column)) for row, column in np.argwhere(maze_map == 0)]


def is_hallway(maze_map: np.ndarray, cell: Cell) -> bool:
    """Whether exactly two opposite neighbors of a cell are free (the outermost cells are walls)."""
    up, left, down, right = (maze_map[cell[0] + row, cell[1] + column] == 0 for row, column in NEIGHBOURS)
    return bool((up and down and not left and not right) or (left and right and not up and not down))


def cells_at(maze_map: np.ndarray, start: Cell, distance: int) -> list[Cell]:
    """The free cells whose shortest path from a cell has a given number of steps."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for row, column in NEIGHBOURS:
            neighbour = (cell[0] + row, cell[1] + column)
            if maze_map[neighbour] == 0 and neighbour not in steps:
                steps[neighbour] = steps[cell] + 1
                queue.append(neighbour)
    return [cell for cell, count in steps.items() if count == distance]
