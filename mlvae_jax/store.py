"""Where pixels live: images sorted by group, in RAM or on the device."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class GroupedImages:
  """Images sorted by group.

  Attributes:
    images: `[N, H, W, C]` uint8.
    offsets: `[G + 1]` int64; group g has the rows offsets[g]:offsets[g + 1].
    names: name of each group, G of them.
  """

  images: np.ndarray
  offsets: np.ndarray
  names: tuple[str, ...]

  @classmethod
  def from_labels(cls, images: np.ndarray, labels: np.ndarray,
                  names: Sequence[str]) -> GroupedImages:
    """Sorts images by group; within a group the order stays.

    Args:
      images: `[N, H, W, C]` uint8.
      labels: `[N]` ints in `[0, G)`, the group of each image.
      names: name of each group.

    Returns:
      The images, sorted.

    Raises:
      ValueError: on shapes, dtypes or labels that do not fit.
    """
    labels = np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8:
      raise ValueError(
          f'expected uint8 images of [N, H, W, C], got {images.dtype} of '
          f'{list(images.shape)}')
    if labels.shape != images.shape[:1]:
      raise ValueError(
          f'expected {len(images)} labels, got {list(labels.shape)}')
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
      raise ValueError(
          f'expected labels in [0, {len(names)}), got labels from '
          f'{labels.min()} to {labels.max()}')
    order = np.argsort(labels, kind='stable')
    count = np.bincount(labels, minlength=len(names))
    offsets = np.concatenate([[0], np.cumsum(count)])
    return cls(images[order], offsets, tuple(names))

  def __len__(self) -> int:
    return len(self.images)

  @property
  def num_groups(self) -> int:
    """Number of groups, G."""
    return len(self.names)

  @property
  def labels(self) -> np.ndarray:
    """Group of each row, `[N]` int32."""
    return np.repeat(
        np.arange(self.num_groups, dtype=np.int32), np.diff(self.offsets))
