"""Rendering of multi-robot scenes with NumPy: from above in 2 dimensions, from the side in 3."""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass

import numpy as np

#: Size of an image in pixels.
PICTURE = 480
PAPER, FLOOR, FRAME, OBSTACLE, SHADOW = (
    np.array(color, dtype=np.float32) / 255
    for color in ((255, 255, 255), (247, 248, 250), (200, 205, 212), (104, 114, 128), (225, 229, 234))
)
#: Camera angles in 3 dimensions, in degrees, and direction of the light: right, up, and toward the camera.
AZIMUTH, ELEVATION, LIGHT = 30.0, 24.0, np.array([-0.45, 0.6, 0.66])


@dataclass(frozen=True)
class Scenery:
    """
    Content of an image.

    :param size: Half of the side of the workspace in meters
    :param radius: Radius of a robot in meters
    :param robots: Positions of the robots, ``(N, D)``
    :param goals: Their goals, ``(N, D)``
    :param obstacles: Centers and radii, ``(M, D + 1)``
    :param past: Past trajectories, ``(N, D, S)``; S may be 0.
    :param future: Future trajectories, ``(N, D, S)``; S may be 0.
    """

    size: float
    radius: float
    robots: np.ndarray
    goals: np.ndarray
    obstacles: np.ndarray
    past: np.ndarray
    future: np.ndarray


def draw(scenery: Scenery) -> np.ndarray:
    """
    Draw robots as colored discs or balls, goals as rings in the colors of their robots, and obstacles in gray.

    :param scenery: Content of the image
    :return: ``(480, 480, 3)`` of uint8
    """
    canvas = Canvas(scenery)
    return canvas.in_space() if scenery.robots.shape[1] == 3 else canvas.from_above()


def colors(robots: int) -> np.ndarray:
    """
    Distinct colors for the robots.

    :param robots: Number of robots
    :return: Red, green and blue, ``(N, 3)``, in [0, 1]
    """
    # Equidistant hues with alternating brightness.
    return np.array(
        [colorsys.hsv_to_rgb((0.58 + i / robots) % 1, 0.78, (0.92, 0.72)[i % 2]) for i in range(robots)], dtype=np.float32
    ).reshape(robots, 3)


class Canvas:
    """
    An image to draw on.

    :param scenery: Content of the image
    """

    def __init__(self, scenery: Scenery) -> None:
        self.scenery = scenery
        self.pixels = np.tile(PAPER, (PICTURE, PICTURE, 1))
        self.rows, self.columns = np.mgrid[:PICTURE, :PICTURE].astype(np.float32)
        self.colors = colors(len(scenery.robots))
        half = scenery.size + 1.5 * scenery.radius
        if scenery.robots.shape[1] == 2:
            self.camera = np.eye(2)
        else:
            azimuth, elevation = np.radians([AZIMUTH, ELEVATION])
            right = [np.cos(azimuth), np.sin(azimuth), 0]
            up = [-np.sin(azimuth) * np.sin(elevation), np.cos(azimuth) * np.sin(elevation), np.cos(elevation)]
            self.camera = np.array([right, up, np.cross(right, up)])  # the third row points to the camera
            half = 1.02 * np.abs(self.camera[:2] @ self._corners()).max()
        self.scale = PICTURE / (2 * half)

    def _corners(self) -> np.ndarray:
        """Corners of the cube, ``(3, 8)``."""
        return self.scenery.size * np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8)

    def place(self, points: np.ndarray) -> np.ndarray:
        """
        Project points to pixels.

        :param points: Points in meters, ``(D, ...)``
        :return: Column and row, and in 3 dimensions the depth toward the camera, ``(D, ...)``
        """
        seen = np.tensordot(self.camera, points, axes=1)
        seen[0], seen[1] = PICTURE / 2 - 0.5 + self.scale * seen[0], PICTURE / 2 - 0.5 - self.scale * seen[1]
        return seen

    def paint(self, color: np.ndarray, alpha: np.ndarray, window: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """
        Blend a color over pixels.

        :param color: Red, green, blue, in [0, 1], one for all pixels or one for each
        :param alpha: Opacity of each pixel
        :param window: Rows and columns of the pixels
        """
        below = self.pixels[window]
        self.pixels[window] = below + alpha[..., None] * (color - below)

    def disc(self, point: np.ndarray, radius: float, color: np.ndarray, inner: float = 0.0, ball: bool = False) -> None:
        """
        Draw a disc, a ring or a ball.

        :param point: Center in meters, ``(D,)``
        :param radius: Radius in meters
        :param color: Red, green, blue
        :param inner: Radius of the hole in meters
        :param ball: Whether to shade it as a ball
        """
        column, row = self.place(point)[:2]
        reach = radius * self.scale
        top, left = (max(int(x - reach - 2), 0) for x in (row, column))
        window = slice(top, max(int(row + reach + 3), 0)), slice(left, max(int(column + reach + 3), 0))
        across, down = self.columns[window] - column, self.rows[window] - row
        distance = np.hypot(across, down)
        alpha = np.clip(reach - distance + 0.5, 0, 1)
        if inner > 0:
            alpha = alpha * np.clip(distance - inner * self.scale + 0.5, 0, 1)
        if ball:
            right, up = across / reach, -down / reach
            toward = np.sqrt(np.clip(1 - right**2 - up**2, 0, 1))
            light = np.clip(right * LIGHT[0] + up * LIGHT[1] + toward * LIGHT[2], 0, 1)[..., None]
            color = np.clip(color * (0.5 + 0.6 * light) + 0.5 * light**24, 0, 1)
        self.paint(color, alpha, window)

    def curve(self, points: np.ndarray, width: float, color: np.ndarray, alpha: np.ndarray | float = 1.0) -> None:
        """
        Draw a line through points.

        :param points: Points in meters, ``(D, S)``
        :param width: Width in pixels
        :param color: Red, green, blue
        :param alpha: Opacity, one for all points or one for each
        """
        if points.shape[1] == 0:
            return
        column, row = self.place(self._dense(points))[:2]
        alphas = np.interp(np.linspace(0, 1, len(column)), np.linspace(0, 1, np.size(alpha)), np.atleast_1d(alpha))
        top, left = (max(int(x.min() - width - 1), 0) for x in (row, column))
        shape = (min(int(row.max() + width + 2), PICTURE) - top, min(int(column.max() + width + 2), PICTURE) - left)
        mask = np.zeros((max(shape[0], 0), max(shape[1], 0)), dtype=np.float32)
        near = range(-int(width / 2 + 1.5), int(width / 2 + 1.5) + 1)
        for down in near:
            for across in near:
                i, j = np.rint(row).astype(int) + down, np.rint(column).astype(int) + across
                cover = alphas * np.clip(width / 2 + 0.5 - np.hypot(i - row, j - column), 0, 1)
                i, j = i - top, j - left
                inside = (i >= 0) & (i < mask.shape[0]) & (j >= 0) & (j < mask.shape[1])
                np.maximum.at(mask, (i[inside], j[inside]), cover[inside].astype(np.float32))
        self.paint(color, mask, (slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])))

    def _dense(self, points: np.ndarray) -> np.ndarray:
        """Resample a line to two points per pixel."""
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points), axis=0))])
        places = np.linspace(0, along[-1], max(int(2 * along[-1] * self.scale), 2))
        return np.stack([np.interp(places, along, axis) for axis in points])

    def ways(self) -> None:
        """Draw past trajectories, and future ones in a lighter color."""
        for robot, color in enumerate(self.colors):
            self.curve(self.scenery.future[robot], 1.2, color, 0.35)
            past = self.scenery.past[robot]
            self.curve(past, 2.2, color, np.linspace(0.25, 0.85, max(past.shape[1], 1)))

    def picture(self) -> np.ndarray:
        """The image as uint8."""
        return np.rint(255 * np.clip(self.pixels, 0, 1)).astype(np.uint8)

    def from_above(self) -> np.ndarray:
        """Draw a scene in 2 dimensions."""
        radius = self.scenery.radius
        edge = self.scenery.size + radius  # centers stay inside of the workspace, edges do not
        x, y = (self.columns - PICTURE / 2 + 0.5) / self.scale, (self.rows - PICTURE / 2 + 0.5) / self.scale
        outside = np.maximum(np.abs(x), np.abs(y)) - edge
        self.paint(FLOOR, np.clip(0.5 - outside * self.scale, 0, 1))
        self.paint(FRAME, np.clip(1.25 - np.abs(outside) * self.scale, 0, 1))
        for obstacle in self.scenery.obstacles:
            self.disc(obstacle[:2], obstacle[2], OBSTACLE)
        self.ways()
        for goal, color in zip(self.scenery.goals, self.colors, strict=True):
            self.disc(goal, radius, color, inner=radius - 2.2 / self.scale)
        for robot, color in zip(self.scenery.robots, self.colors, strict=True):
            self.disc(robot, radius, 0.65 * color)
            self.disc(robot, radius - 1.5 / self.scale, color)
        return self.picture()

    def in_space(self) -> np.ndarray:
        """Draw a scene in 3 dimensions: a cube, shadows on its floor, and its contents from back to front."""
        scenery = self.scenery
        corners = self._corners().T
        x, y = self.floor
        on_floor = (np.maximum(np.abs(x), np.abs(y)) <= scenery.size).astype(np.float32)
        self.paint(FLOOR, on_floor)
        nearest = corners[(corners @ self.camera[2]).argmax()]
        for a in corners:
            for b in corners:
                if (a < b).sum() == 1 and (a > b).sum() == 0 and not ((a == nearest).all() or (b == nearest).all()):
                    self.curve(np.stack([a, b], axis=1), 1.2, FRAME)
        things = [(o[:3], o[3], OBSTACLE) for o in scenery.obstacles]
        things += [(r, scenery.radius, c) for r, c in zip(scenery.robots, self.colors, strict=True)]
        for center, radius, _ in things:
            distance = np.hypot(x - center[0], y - center[1])
            self.paint(SHADOW, on_floor * np.clip((radius - distance) * self.scale * 0.5 + 0.5, 0, 1))
        self.ways()
        for goal, color in zip(scenery.goals, self.colors, strict=True):
            self.disc(goal, scenery.radius, color, inner=scenery.radius - 1.8 / self.scale)
        for center, radius, color in sorted(things, key=lambda thing: float(thing[0] @ self.camera[2])):
            self.disc(center, radius, color, ball=True)
        return self.picture()

    @functools.cached_property
    def floor(self) -> np.ndarray:
        """The point of the floor behind each pixel, ``(2, 480, 480)``."""
        right = (self.columns - PICTURE / 2 + 0.5) / self.scale
        up = (PICTURE / 2 - 0.5 - self.rows) / self.scale + self.scenery.size * self.camera[1, 2]
        return np.tensordot(np.linalg.inv(self.camera[:2, :2]), np.stack([right, up]), axes=1)
