"""Seals of checkpoints: what was saved, to know it again when it is read.

A seal holds the shapes and types of the arrays of every item, and a SHA-256
of their bytes. A reader that only compared shapes would not see a flipped bit.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

Seal = dict[str, dict[str, Any]]


class DamagedError(ValueError):
  """A checkpoint does not hold what was saved."""


def make(items: dict[str, Any]) -> Seal:
  """The seal of items, each a tree of arrays; plain JSON."""
  return {name: {'arrays': _shapes(item), 'sha256': _digest(item)}
          for name, item in items.items()}


def check_form(step: int, seal: Seal, like: dict[str, Any]) -> None:
  """Checks that sealed items have the form of others.

  Args:
    step: of the checkpoint, for the error.
    seal: of its items.
    like: some of them, of the expected form.

  Raises:
    ValueError: when they have not: they are of another model.
  """
  for name, item in like.items():
    found, expected = seal.get(name, {}).get('arrays'), _shapes(item)
    if found != expected:
      raise ValueError(
          f'the checkpoint of step {step} is of another model: its {name} are '
          f'{found}, expected {expected}')


def check_content(seal: Seal, items: dict[str, Any]) -> None:
  """Raises a DamagedError where items are not what was sealed."""
  for name, item in items.items():
    if _digest(item) != seal[name]['sha256']:
      raise DamagedError(f'the checksum of {name} is wrong')


def _shapes(tree: Any) -> list[str]:
  """Types and shapes of the arrays of a tree, in order."""
  return [f'{np.asarray(leaf).dtype}{list(np.shape(leaf))}'
          for leaf in jax.tree.leaves(tree)]


def _digest(tree: Any) -> str:
  """SHA-256 of the bytes of all arrays of a tree, in order."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    digest.update(np.ascontiguousarray(leaf))
  return digest.hexdigest()
