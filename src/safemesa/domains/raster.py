"""A rasteriser in plain NumPy: boxes and discs on a square image, for `render()`."""

from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]
Interval = tuple[float, float]

WHITE: Colour = (255, 255, 255)
RED: Colour = (204, 51, 51)
GREEN: Colour = (51, 160, 75)
BLUE: Colour = (40, 90, 200)


class Box(NamedTuple):
    """A closed, axis-aligned rectangle: an obstacle, or the part of the world that is shown."""

    x: Interval
    y: Interval


class Canvas:
    """A white image `[size, size, 3]` of a part of the world; row 0 is its upper edge.

    The axes may have different scales. What lies outside the view is not drawn.
    """

    def __init__(self, view: Box, size: int) -> None:
        """Makes an empty canvas of `size` x `size` pixels."""
        self.pixels = np.full((size, size, 3), WHITE, dtype=np.uint8)
        centres = (np.arange(size) + 0.5) / size
        self._x_per_pixel = (view.x[1] - view.x[0]) / size
        self._y_per_pixel = (view.y[1] - view.y[0]) / size
        self._x = view.x[0] + centres * (view.x[1] - view.x[0])
        self._y = view.y[1] - centres * (view.y[1] - view.y[0])

    def box(self, box: Box, colour: Colour) -> None:
        """Fills a rectangle; one thinner than a pixel may vanish."""
        columns = (self._x >= box.x[0]) & (self._x <= box.x[1])
        rows = (self._y >= box.y[0]) & (self._y <= box.y[1])
        self.pixels[np.ix_(rows, columns)] = colour

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fills a disc of `radius` pixels, round on the image whatever the scales of the axes."""
        across = (self._x - x) / self._x_per_pixel
        down = (self._y - y) / self._y_per_pixel
        inside = across[None, :] ** 2 + down[:, None] ** 2 <= radius**2
        self.pixels[inside] = colour
