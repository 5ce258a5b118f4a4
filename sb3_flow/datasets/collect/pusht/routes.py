"""Ways round the block, from where the agent is to where it can begin to push."""

from __future__ import annotations

import numpy as np

from sb3_flow.datasets.collect.pusht.tee import Tee, to_body, to_world

#: Where a push begins: so far from the block (pixels, beyond the agent's radius).
STAND_OFF = 5.0
#: Ways keep so far from the block, for the agent cuts corners.
CLEARANCE = 3.0
#: Ways lead round corners at this distance.
RING = 12.0
#: How far to step away from a block that is too near, and in how many directions to try.
STEP_AWAY, DIRECTIONS = (12.0, 24.0, 40.0), 16
#: The border of the world (pixels) that agents keep away from.
BORDER = 2.0


class Routes:
    """
    Shortest ways that keep clear of the block.

    The block is rigid: which points see each other is found out once, in its own frame.

    :param tee: The block
    :param radius: Of the agent (pixels)
    :param size: Width of the world (pixels)
    """

    def __init__(self, tee: Tee, radius: float, size: float) -> None:
        self._tee, self._radius, self._size = tee, radius, size
        stands = tee.contacts + tee.normals * (radius + STAND_OFF)
        free = tee.gap(stands) >= radius + STAND_OFF - 0.5  # not those in the inner corners
        self.stands, self.normals = stands[free], tee.normals[free]
        self._nodes = np.concatenate([self.stands, tee.ring(radius + RING)])
        self._lengths = self._see(self._nodes[:, None], self._nodes[None])

    def _see(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Length of the straight ways between points, infinite where the block is in the way."""
        length = np.linalg.norm(starts - ends, axis=-1)
        return np.where(self._tee.gap_of_lines(starts, ends) >= self._radius + CLEARANCE, length, np.inf)

    def ways(self, agent: np.ndarray, block: np.ndarray) -> dict[int, np.ndarray]:
        """
        Find the way to each place where a push can begin.

        :param agent: Position of the agent, ``(2,)``
        :param block: Pose of the block, ``(3,)``
        :return: By the number of the place: the corners of the way, without the start, ``(N, 2)``. Places that cannot be
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
        """Dijkstra's algorithm: the node before each one (-1: the start), and which nodes can be reached."""
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
        """Where to go first (in the block's frame) if the agent is too near the block for any way to be clear."""
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
