"""Geometry of the block: its outline, contact points for pushes, and its coverage of the goal."""

from __future__ import annotations

from typing import Any

import numpy as np

from sb3_flow.common.optional import require

#: Edges longer than this (pixels) have several contact points, shorter ones have one in the middle.
LONG_EDGE = 40.0
#: Contact points of long edges, as shares of their length.
PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Tee:
    """
    The block in its frame (pixels; the origin is the body's position, and the pose is ``x, y, angle``).

    :param parts: Vertices of its rectangles, each ``(4, 2)``
    :param goal: Goal pose
    """

    def __init__(self, parts: list[np.ndarray], goal: np.ndarray) -> None:
        self._shapely: Any = require("shapely", "pusht", "Planning in Push-T")
        shape = self._shapely.union_all([self._shapely.Polygon(part) for part in parts])
        self.polygon = self._shapely.geometry.polygon.orient(shape.simplify(0.0))
        #: Corners, counterclockwise, ``(8, 2)``
        self.outline = np.array(self.polygon.exterior.coords)[:-1]
        self._keypoints = np.concatenate(parts)
        self._goal = np.asarray(goal, dtype=np.float64)
        self._goal_polygon = self._shapely.Polygon(to_world(self.outline, self._goal))
        self._goal_keypoints = to_world(self._keypoints, self._goal)
        self.contacts, self.normals = self._find_contacts()

    def _find_contacts(self) -> tuple[np.ndarray, np.ndarray]:
        """Contact points, ``(N, 2)``, and their outward normals, ``(N, 2)``."""
        points, normals = [], []
        for start, end in zip(self.outline, np.roll(self.outline, -1, axis=0), strict=True):
            edge = end - start
            length = np.linalg.norm(edge)
            for place in PLACES if length > LONG_EDGE else (0.5,):
                points.append(start + place * edge)
                normals.append(np.array([edge[1], -edge[0]]) / length)  # to the right of a counterclockwise outline
        return np.array(points), np.array(normals)

    def distance(self, poses: np.ndarray) -> np.ndarray:
        """
        Distance of the block from its goal.

        :param poses: ``(..., 3)``
        :return: Root of the mean squared distance of the eight key points (pixels), ``(...)``
        """
        offsets = to_world(self._keypoints, poses) - self._goal_keypoints
        distance: np.ndarray = np.sqrt(np.mean(np.sum(offsets**2, axis=-1), axis=-1))
        return distance

    def coverage(self, poses: np.ndarray) -> np.ndarray:
        """
        Share of the goal that the block covers, as in the environment.

        :param poses: ``(..., 3)``
        :return: From 0 to 1, ``(...)``
        """
        blocks = self._shapely.polygons(to_world(self.outline, poses))
        common = self._shapely.area(self._shapely.intersection(blocks, self._goal_polygon))
        share: np.ndarray = common / self._goal_polygon.area
        return share

    def gap(self, points: np.ndarray) -> np.ndarray:
        """
        Distance of points from the block.

        :param points: In the block's frame, ``(..., 2)``
        :return: Pixels, 0 within the block, ``(...)``
        """
        gap: np.ndarray = self._shapely.distance(self._shapely.points(points), self.polygon)
        return gap

    def gap_of_lines(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """
        Distance of straight lines from the block.

        :param starts: Start points in the block's frame, ``(..., 2)``
        :param ends: End points, of a shape that broadcasts
        :return: Pixels, ``(...)``
        """
        lines = self._shapely.linestrings(np.stack(np.broadcast_arrays(starts, ends), axis=-2))
        gap: np.ndarray = self._shapely.distance(lines, self.polygon)
        return gap

    def ring(self, distance: float) -> np.ndarray:
        """
        Points around the convex hull of the block.

        :param distance: Distance from the hull (pixels)
        :return: In the block's frame, ``(N, 2)``
        """
        ring: np.ndarray = np.array(self.polygon.convex_hull.buffer(distance, quad_segs=2).exterior.coords)[:-1]
        return ring


def rotation(angle: np.ndarray | float) -> np.ndarray:
    """
    Rotation matrices.

    :param angle: Radians, ``(...)``
    :return: ``(..., 2, 2)``
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)


def to_world(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """
    Transform points from the frame of a body to the world.

    :param points: In the body's frame, ``(N, 2)``
    :param poses: ``x, y, angle``, ``(..., 3)``
    :return: ``(..., N, 2)``
    """
    placed: np.ndarray = points @ np.swapaxes(rotation(poses[..., 2]), -1, -2) + poses[..., None, :2]
    return placed


def to_body(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """
    Transform points from the world to the frame of a body.

    :param points: In the world, ``(..., 2)``
    :param pose: ``x, y, angle``, ``(3,)``
    :return: ``(..., 2)``
    """
    turned: np.ndarray = (points - pose[:2]) @ rotation(pose[2])
    return turned
