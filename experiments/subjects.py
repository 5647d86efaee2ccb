"""What pictures of a run show: which test images, and their codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

import mlvae_jax
from mlvae_jax.latents import Codes
from mlvae_jax.model import Model, Params
from mlvae_jax.store import GroupedImages

SEED = 0  # Of which images are shown, and of the codes that are drawn.
NUM_EVIDENCE = 10  # Other images of the group, as in the paper.
NUM_SETS = 10  # At most so many images or groups on a figure.
MAX_MEMBERS = 100  # A group's code hardly changes beyond that many images.
# Compiled whole: op by op, drawing a run would compile for seconds.
_infer = jax.jit(mlvae_jax.infer, static_argnums=(0, 4))


class Subject(NamedTuple):
  """What image figures are drawn of.

  Attributes:
    model: static.
    params: its parameters.
    images: the test images.
    grouping: what a group is.
    factor: name of the factor that is swapped, None in a VAE.
  """

  model: Model
  params: Params
  images: GroupedImages
  grouping: str
  factor: str | None

  @property
  def others(self) -> str:
    """Names of the other factors, to be read."""
    return ' and '.join(
        f.name for f in self.model.factors if f.name != self.factor)

  def group(self, row: int) -> int:
    """The group of a row."""
    return int(np.searchsorted(self.images.offsets, row, side='right')) - 1

  def rows(self, group: int) -> np.ndarray:
    """The rows of a group, at most `MAX_MEMBERS`."""
    start, stop = self.images.offsets[group:group + 2]
    return np.arange(start, min(stop, start + MAX_MEMBERS))


def choose_groups(images: GroupedImages, count: int) -> np.ndarray:
  """Up to `count` groups that have images, in order; those of 10 first."""
  sizes = np.diff(images.offsets)
  shuffled = np.random.default_rng(SEED).permutation(len(sizes))
  order = np.lexsort((shuffled, -np.minimum(sizes, NUM_EVIDENCE)))[:count]
  return np.sort(order[sizes[order] > 0])


def choose_images(subject: Subject, count: int) -> np.ndarray:
  """Rows of up to `count` images, equally many of each group."""
  groups = choose_groups(subject.images, count)
  return np.concatenate(
      [subject.rows(g)[:count // len(groups)] for g in groups])


def choose_members(subject: Subject, group: int) -> np.ndarray:
  """Rows of a group whose reconstructions show what evidence does.

  These are chosen, as in the paper: the two images whose mean code, inferred
  alone, is furthest from the group's, and the two nearest. Without a grouped
  factor, or a choice, the first four.
  """
  rows = subject.rows(group)
  if subject.factor is None or len(rows) <= 4:
    return rows[:4]
  alone, together = (
      encode(subject, [rows], together=together)[subject.factor]
      for together in (False, True))
  distance = np.linalg.norm(alone - together, axis=-1)
  return rows[np.argsort(-distance)[[0, 1, -2, -1]]]


def sample_with_evidence(subject: Subject, rows: np.ndarray, key: jax.Array
                          ) -> Codes:
  """A sample per image; grouped codes see up to 10 others of the group."""
  members = []
  for row in rows:
    others = subject.rows(subject.group(row))
    others = others[others != row][:NUM_EVIDENCE]
    members.append(np.append(row, others))
  return first_of_each(encode(subject, members, key), members)


def encode(subject: Subject, members: Sequence[np.ndarray],
            key: jax.Array | None = None, *, together: bool = True) -> Codes:
  """Codes of all rows of up to `NUM_SETS` sets, as NumPy arrays.

  The rows of a set accumulate their evidence, unless they are not together.
  """
  rows = np.concatenate(members)
  # Few shapes, to compile little: padding is one more set.
  size = max(32, 1 << (len(rows) - 1).bit_length())
  ids = np.full(size, NUM_SETS, np.int32)
  ids[:len(rows)] = np.repeat(
      np.arange(len(members)), [len(m) for m in members])
  codes = jax.device_get(_infer(
      subject.model, subject.params,
      subject.images.images[np.resize(rows, size)],
      *((ids, NUM_SETS + 1) if together else ()), key=key))
  return {name: code[:len(rows)] for name, code in codes.items()}


def first_of_each(codes: Codes, members: Sequence[np.ndarray]) -> Codes:
  """The codes of each set's first row."""
  first = np.cumsum([0] + [len(m) for m in members[:-1]])
  return {name: code[first] for name, code in codes.items()}
