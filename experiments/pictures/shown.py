"""The test images that a picture shows, and their codes."""

from __future__ import annotations

from collections.abc import Sequence
import functools

import jax
import numpy as np

from experiments.pictures.subject import (
    NUM_EVIDENCE,
    NUM_SETS,
    Subject,
    groups_of,
)
import mlvae_jax
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.inference.encode import Codes

# Compiled as a whole: op by op, drawing a run would compile for seconds.
_infer = jax.jit(mlvae_jax.infer, static_argnums=(0, 4))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _posterior(model, params, factor, x, codes):
  return model.posterior(
      params, factor, model.encode_rows(params, model.prepare(x)), codes)


def choose_images(subject: Subject, count: int) -> np.ndarray:
  """Rows of up to `count` images, equally many of each group.

  Images that share a group in another grouping are avoided, so that the images
  differ in every known factor.
  """
  groups, images = subject.groups, subject.images
  further = [groups_of(images, name).ids for name in images.groupings
             if name != subject.grouping]
  chosen = groups.choose(count)
  rows = []
  for group in np.repeat(chosen, count // max(1, len(chosen))):
    free = np.array([r for r in groups.rows(group) if r not in rows], int)
    if len(free):
      in_common = sum((ids[free, None] == ids[rows]).sum(-1)
                      for ids in further)
      # Zeros, because without further groupings the sum is a scalar.
      rows.append(free[np.argmin(in_common + np.zeros(len(free)))])
  return np.array(rows, int)


def choose_members(subject: Subject, groups: Sequence[int]
                   ) -> list[np.ndarray]:
  """Rows of each group whose reconstructions show the effect of evidence.

  As in the paper, these are chosen: the two images whose mean code, inferred
  alone, is furthest from that of the group, and the two nearest. Without a
  grouped factor they are the first four; of at most four images, all.
  """
  members = [subject.groups.rows(group) for group in groups]
  if subject.factor is None:
    return [rows[:4] for rows in members]
  alone, together = (
      encode(subject, members, grouping=grouping)[subject.factor]
      for grouping in (None, subject.grouping))
  distances = np.split(np.linalg.norm(alone - together, axis=-1),
                       np.cumsum([len(rows) for rows in members])[:-1])
  return [rows[np.argsort(-distance)[[0, 1, -2, -1]]] if len(rows) > 4
          else rows for rows, distance in zip(members, distances)]


def infer_codes(subject: Subject, rows: np.ndarray,
                key: jax.Array | None = None) -> Codes:
  """Codes of up to `NUM_SETS` images by the subject's strategy.

  Args:
    subject: model, test images and strategy.
    rows: rows `[N]` of the test images.
    key: optional random key for samples instead of means; consumed.

  Returns:
    Codes `[N, D]` per factor. With strategy 2, codes of a grouped factor have
    the evidence of up to `NUM_EVIDENCE` other images of the same group in the
    factor's grouping; an ungrouped factor that is given them is inferred
    after them.
  """
  codes = encode(subject, [rows], key)
  for grouping in subject.model.groupings if subject.strategy == 2 else ():
    groups, members = groups_of(subject.images, grouping), []
    for row in rows:
      others = groups.rows(groups.ids[row])
      others = others[others != row][:NUM_EVIDENCE]
      members.append(np.append(row, others))
    codes |= group_codes(subject, members, grouping, key)
  if subject.strategy == 2 and subject.model.grouped:
    codes |= _infer_given(subject, rows, codes, key)
  return codes


def _infer_given(subject: Subject, rows: np.ndarray, codes: Codes,
                 key: jax.Array | None) -> Codes:
  """The codes of factors that are given codes which groups share.

  As in training, their encoder sees the code of the group, not that of the
  image alone.
  """
  model, found = subject.model, {}
  keys = model.factors if key is None else jax.random.split(
      key, len(model.factors))
  for factor, own_key in zip(model.factors, keys):
    if factor.given and factor.grouping is None:
      q = _posterior(model, subject.params, factor, subject.images.x[rows],
                     codes | found)
      found[factor.name] = np.asarray(
          q.mean if key is None else q.sample(own_key))
  return found


def group_codes(subject: Subject, members: Sequence[np.ndarray],
                grouping: str, key: jax.Array | None = None, *,
                images: GroupedData | None = None) -> Codes:
  """The codes that sets of images share, of the factors of one grouping.

  Args:
    subject: subject whose model is used.
    members: rows of each set, all of which are evidence.
    grouping: grouping of the factors.
    key: optional random key for samples instead of means; consumed.
    images: images to which the rows refer; by default the test images.

  Returns:
    Codes `[len(members), D]` per factor of that grouping.
  """
  codes = encode(subject, members, key, grouping, images=images)
  # Every row of a set has the set's posterior; the first row's code stands for
  # the set, also where codes are sampled per row.
  first = np.cumsum([0] + [len(m) for m in members[:-1]])
  return {f.name: codes[f.name][first] for f in subject.model.grouped
          if f.grouping == grouping}


def encode(subject: Subject, members: Sequence[np.ndarray],
           key: jax.Array | None = None, grouping: str | None = None, *,
           images: GroupedData | None = None) -> Codes:
  """Codes of all rows of up to `NUM_SETS` sets, as NumPy arrays.

  Args:
    subject: subject whose model is used.
    members: rows of each set.
    key: optional random key for samples instead of means; consumed.
    grouping: grouping whose factors accumulate the evidence of the rows of a
      set. All other factors, and without a grouping all factors, are inferred
      from each row alone.
    images: images to which the rows refer; by default the test images.

  Returns:
    Codes `[N, D]` per factor, for N rows in total.
  """
  images = subject.images if images is None else images
  rows = np.concatenate(members)
  # Sizes are powers of two and padding is one more set, so that there are few
  # shapes to compile for.
  size = max(128, 1 << (len(rows) - 1).bit_length())
  ids = np.full(size, NUM_SETS, np.int32)
  ids[:len(rows)] = np.repeat(
      np.arange(len(members)), [len(m) for m in members])
  group_ids = {f.name: ids for f in subject.model.grouped
               if f.grouping == grouping}
  codes = jax.device_get(_infer(
      subject.model, subject.params, images.x[np.resize(rows, size)],
      group_ids, NUM_SETS + 1, key=key))
  return {name: code[:len(rows)] for name, code in codes.items()}
