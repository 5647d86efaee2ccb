"""Modified Hausdorff distance of drawings, a control that learns nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ink_points(image: np.ndarray) -> np.ndarray:
  """The places of the ink pixels of a drawing, relative to their centre.

  Args:
    image: `[height, width]` uint8. The ink is its dark or its light pixels,
      whichever are fewer.

  Returns:
    `[P, 2]` float64, P >= 1, of mean 0; a blank image has one point.
  """
  is_dark = np.asarray(image) < 128
  ink = is_dark if 2 * np.count_nonzero(is_dark) <= is_dark.size else ~is_dark
  points = np.argwhere(ink).astype(np.float64)
  return points - points.mean(axis=0) if len(points) else np.zeros((1, 2))


def modified_hausdorff(a: Sequence[np.ndarray], b: Sequence[np.ndarray]
                       ) -> np.ndarray:
  """Modified Hausdorff distances (Dubuisson and Jain 1994) of sets of points.

  The distance of two sets is the larger of two means: over the points of each
  set, of the distance to the nearest point of the other.

  Args:
    a: A sets of points, `[P, 2]` each.
    b: B sets of points, `[P, 2]` each.

  Returns:
    `[A, B]` float64, in the unit of the points.
  """
  starts = np.cumsum([0, *(len(points) for points in b[:-1])])
  counts = np.array([len(points) for points in b])
  all_b = np.concatenate(b)
  # |p - q|^2 = -2 p q + |p|^2 + |q|^2 by one matrix product.
  right = np.stack([*(-2 * all_b.T), np.ones(len(all_b)), _squares(all_b)])
  distances = np.empty((len(a), len(b)))
  for i, points in enumerate(a):
    square = np.stack(
        [*points.T, _squares(points), np.ones(len(points))], axis=1) @ right
    from_a = _root(np.minimum.reduceat(square, starts, axis=1)).mean(axis=0)
    from_b = np.add.reduceat(_root(square.min(axis=0)), starts) / counts
    distances[i] = np.maximum(from_a, from_b)
  return distances


def _squares(points: np.ndarray) -> np.ndarray:
  return np.sum(np.square(points), axis=1)


def _root(square: np.ndarray) -> np.ndarray:
  return np.sqrt(np.maximum(square, 0.0))  # Rounded, it may be below 0.
