"""Paths around the block, from the agent to the start of a push."""

from __future__ import annotations

import numpy as np

from sb3_flow.datasets.collect.pusht.tee import Tee, to_body, to_world

#: Distance from the block at which a push begins (pixels, beyond the agent's radius).
STAND_OFF = 5.0
#: Distance of paths from the block, because the agent cuts corners.
CLEARANCE = 3.0
#: Distance of paths from the corners of the block.
RING = 12.0
#: Distances of a first step away from a block that is too near, and the number of directions.
STEP_AWAY, DIRECTIONS = (12.0, 24.0, 40.0), 16
#: Distance of paths from the border of the world (pixels).
BORDER = 2.0


class Routes:
    """
    Shortest collision-free paths around the block.

    The block is rigid, so the visibility between points is computed once, in its frame.

    :param tee: The block
    :param radius: Radius of the agent (pixels)
    :param size: Width of the world (pixels)
    """

    def __init__(self, tee: Tee, radius: float, size: float) -> None:
        self._tee, self._radius, self._size = tee, radius, size
        stands = tee.contacts + tee.normals * (radius + STAND_OFF)
        free = tee.gap(stands) >= radius + STAND_OFF - 0.5  # without the inner corners
        self.stands, self.normals = stands[free], tee.normals[free]
        self._nodes = np.concatenate([self.stands, tee.ring(radius + RING)])
        self._lengths = self._see(self._nodes[:, None], self._nodes[None])

    def _see(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Length of the straight lines between points, infinite if the block is in between."""
        length = np.linalg.norm(starts - ends, axis=-1)
        return np.where(self._tee.gap_of_lines(starts, ends) >= self._radius + CLEARANCE, length, np.inf)

    def ways(self, agent: np.ndarray, block: np.ndarray) -> dict[int, np.ndarray]:
        """
        Find the path to each start of a push.

        :param agent: Position of the agent, ``(2,)``
        :param block: Pose of the block, ``(3,)``
        :return: Corners of the path without its start, ``(N, 2)``, by the index of the contact point. Points that cannot be
            reached are left out.
        """
        start = to_body(agent, block)
        away = self._step_away(start)
        if away is not None:
            start = away
        world = to_world(self._nodes, block)
        usable = np.all((world >= BORDER) & (world <= self._size - BORDER), axis=-1)
        before, reached = self._shortest(self._see(start[None], self._nodes), usable)
        ways = {}
        for place in range(len(self.stands)):
            if not reached[place]:
                continue
            nodes = [place]
            while before[nodes[-1]] >= 0:
                nodes.append(int(before[nodes[-1]]))
            corners = world[nodes[::-1]]
            if away is not None:
                corners = np.concatenate([to_world(away[None], block), corners])
            ways[place] = np.clip(corners, 0.0, self._size)
        return ways

    def _shortest(self, first: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Dijkstra's algorithm: the predecessor of each node (-1: the start), and flags of the nodes that can be reached."""
        distance = np.where(usable, first, np.inf)
        before = np.full(len(distance), -1)
        open_nodes = usable.copy()
        while True:
            candidates = np.where(open_nodes, distance, np.inf)
            node = int(candidates.argmin())
            if not np.isfinite(candidates[node]):
                return before, np.isfinite(distance)
            open_nodes[node] = False
            onward = np.where(open_nodes, distance[node] + self._lengths[node], np.inf)
            shorter = onward < distance
            distance[shorter], before[shorter] = onward[shorter], node

    def _step_away(self, start: np.ndarray) -> np.ndarray | None:
        """First target (in the block's frame) if the agent is too near the block for collision-free paths; else None."""
        if self._tee.gap(start) >= self._radius + CLEARANCE:
            return None
        angles = np.linspace(0.0, 2 * np.pi, DIRECTIONS, endpoint=False)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        for step in STEP_AWAY:
            ends = start + step * directions
            gaps = self._tee.gap(ends)
            if gaps.max() >= self._radius + CLEARANCE:
                return np.array(ends[gaps.argmax()])
        return np.array(ends[gaps.argmax()])
