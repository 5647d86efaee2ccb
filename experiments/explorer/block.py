"""The data of the explorer: test images, their posteriors and the decoder.

`experiments.figures` writes them to figures/explorer.json, from which the
report makes a part of its page. Numbers are base64 of little-endian arrays.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
import json
import os
from typing import Any

import jax
import numpy as np

from experiments.explorer import decoder
from experiments.pictures.subject import Subject, groups_of, in_words
import mlvae_jax
from mlvae_jax.files import write_atomically
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model import registry
from mlvae_jax.model.model import Model

FILE = 'explorer.json'  # In the folder of a run's figures.
_NUM_GROUPS, _NUM_MEMBERS = 12, 6
# Of the page: what is larger takes too long to send and to open.
_MAX_WEIGHT_BYTES, _MAX_PIXEL_BYTES = 4_500_000, 1_500_000
# Compiled as a whole: op by op, they would compile for seconds.
_encode = jax.jit(Model.encode, static_argnums=0)
_posteriors = jax.jit(mlvae_jax.posteriors, static_argnums=(0, 4))


def write(subject: Subject, folder: str) -> str | None:
  """Writes the data of a run's explorer, completely or not at all.

  Args:
    subject: model and test images.
    folder: folder of the run's figures.

  Returns:
    The path of the file; None if a page cannot show such a run. That of an
    earlier model is then removed.
  """
  path = os.path.join(folder, FILE)
  if not can_explore(subject):
    if os.path.exists(path):
      os.remove(path)
    return None
  write_atomically(path, json.dumps(make(subject)) + '\n')
  return path


def can_explore(subject: Subject) -> bool:
  """Whether there are images, codes to exchange, and a decoder for a page."""
  model = subject.model
  return (subject.shows_images and bool(model.grouped) and model.has_encoder
          and len(model.factors) > 1 and decoder.can_run(model))


def make(subject: Subject) -> dict[str, Any]:
  """The data of the explorer as JSON.

  Args:
    subject: model and test images, for which `can_explore` holds.

  Returns:
    The data; only 'missing', a sentence, if they are too large for a page.
  """
  model = subject.model
  found = decoder.of_model(model, subject.params)
  if found.weights.nbytes > _MAX_WEIGHT_BYTES:
    return {'missing': (
        'The explorer of codes is left out, because the weights of this '
        f'decoder take {found.weights.nbytes / 1e6:.1f} MB: more than the '
        f'{_MAX_WEIGHT_BYTES / 1e6:.1f} MB that this page has room for.')}
  rows = _choose_rows(subject)
  x = np.asarray(subject.images.x[rows])
  labels = {
      name: _labels(subject, name, rows) for name in model.groupings}
  codes = _codes(subject, x, labels)
  return {
      'shape': list(model.observation_shape),
      'pixels': _base64(
          x if x.dtype == np.uint8 else np.rint(255.0 * x), np.uint8),
      'groupings': labels,
      'factors': [{
          'name': f.name, 'dim': f.dim, 'grouping': f.grouping,
          'mean': _base64(codes[f.name].mean, '<f4'),
          'logvar': _base64(codes[f.name].logvar, '<f4'),
          # The dimensions that differ most between images come first.
          'dimensions': np.argsort(
              -codes[f.name].mean.var(axis=0)).tolist(),
      } for f in model.factors],
      'group_posterior': registry.to_dict(
          model.group_posterior, GROUP_POSTERIORS)['name'],
      'given': _given(model),
      'decoder': {'steps': found.steps, 'output': found.output,
                  'weights': _base64(found.weights, '<f2')},
  }


def _choose_rows(subject: Subject) -> np.ndarray:
  """Rows of a few images of each of a few groups, those of a group together.

  Of a group, images are preferred that share a group in the other groupings
  with images of other groups, so that there is evidence in every grouping.
  """
  images, groups = subject.images, subject.groups
  size = int(np.prod(subject.model.observation_shape))
  num_groups = int(np.clip(
      _MAX_PIXEL_BYTES // (_NUM_MEMBERS * size), 2, _NUM_GROUPS))
  others = [groups_of(images, name) for name in subject.model.groupings
            if name != subject.grouping]
  shared = sum(
      (np.isin(other.ids, other.choose(_NUM_MEMBERS)) for other in others),
      np.zeros(len(images)))
  chosen = []
  for group in groups.choose(num_groups):
    rows = groups.rows(group)
    order = np.argsort(-shared[rows], kind='stable')
    chosen.append(rows[order][:_NUM_MEMBERS])
  return np.concatenate(chosen)


def _labels(subject: Subject, grouping: str, rows: np.ndarray
            ) -> dict[str, Any]:
  """The groups of the images: numbers from 0, and their names."""
  groups = groups_of(subject.images, grouping)
  # Images of an unknown group are groups of their own, as in the pictures.
  found, ids = np.unique(groups.ids[rows], return_inverse=True)
  return {'ids': ids.tolist(), 'names': [groups.name(g) for g in found]}


def _codes(subject: Subject, x: np.ndarray,
           labels: Mapping[str, Mapping[str, Any]]) -> dict[str, Normal]:
  """The posteriors `[N, D]` of each image alone, by factor.

  Those of grouped factors are the evidence that the page combines. An
  ungrouped factor that is given others has been inferred given what all images
  of its group say together.
  """
  model, params = subject.model, subject.params
  ids = {f.name: np.array(labels[f.grouping]['ids'], np.int32)
         for f in model.grouped}
  alone, together = jax.device_get((
      _encode(model, params, x), _posteriors(model, params, x, ids, len(x))))
  return {f.name: (alone if f.grouping else together)[f.name]
          for f in model.factors}


def _given(model: Model) -> str:
  """A sentence on factors that are given others; '' if there are none."""
  given = [f for f in model.factors if f.given and f.grouping is None]
  if not given:
    return ''
  names = in_words([f.name for f in given])
  of = in_words(list(dict.fromkeys(
      name for factor in given for name in factor.given)))
  return (f'The encoder of {names} also saw the {of} of the group, inferred '
          'from all its images on this page. Choosing another '
          f'{of} here does not change {names}.')


def _base64(array: Any, dtype: Any) -> str:
  return base64.b64encode(np.asarray(array).astype(dtype).tobytes()).decode()
