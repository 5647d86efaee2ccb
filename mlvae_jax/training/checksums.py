"""Seals of checkpoints, which reveal whether their files have changed.

A seal holds the shapes and types of the arrays of every item, and a SHA-256 of
their bytes. Comparing shapes alone would not detect a flipped bit.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

Seal = dict[str, dict[str, Any]]


class DamagedError(ValueError):
  """A checkpoint's content is not what was saved."""


def make(items: dict[str, Any]) -> Seal:
  """Makes the seal of named items, each a pytree of arrays; plain JSON."""
  return {name: {'arrays': _shapes(item), 'sha256': _digest(item)}
          for name, item in items.items()}


def check_form(step: int, seal: Seal, like: dict[str, Any]) -> None:
  """Checks that the items of a checkpoint have the expected form.

  Args:
    step: step of the checkpoint, for the error.
    seal: seal of its items.
    like: items of the expected form; some of the checkpoint's, by name.

  Raises:
    ValueError: where shapes or types differ: the checkpoint is another
      model's.
  """
  for name, item in like.items():
    found, expected = seal.get(name, {}).get('arrays'), _shapes(item)
    if found != expected:
      raise ValueError(
          f'the checkpoint of step {step} is of another model: its {name} are '
          f'{found}, but this model needs {expected}')


def check_content(seal: Seal, items: dict[str, Any]) -> None:
  """Raises a DamagedError where the bytes of items do not match their seal."""
  for name, item in items.items():
    if _digest(item) != seal[name]['sha256']:
      raise DamagedError(f'the checksum of {name} is wrong')


def _shapes(tree: Any) -> list[str]:
  """Types and shapes of the arrays of a tree, in the order of its leaves."""
  return [f'{np.asarray(leaf).dtype}{list(np.shape(leaf))}'
          for leaf in jax.tree.leaves(tree)]


def _digest(tree: Any) -> str:
  """SHA-256 of the bytes of a tree's arrays, in the order of its leaves."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    # Bytes do not say where an array ends; `check_form` compares the shapes.
    digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  return digest.hexdigest()
