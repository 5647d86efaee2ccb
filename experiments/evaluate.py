"""Measures how content and style separate: probes, controls, ELBO.

  python -m experiments.evaluate --workdir=runs/mnist5k-mlvae

For every k of --ks images of evidence per group, a classifier of two hidden
layers of 256 units reads the label off each factor's code, from posterior
means and from samples. Grouped factors accumulate the evidence of k images
of a label; the code of an ungrouped factor belongs to one image, whatever k.
Controls stand beside it: an untrained encoder, raw pixels, the ungrouped
codes accumulated as if they were grouped, and the codes of a VAE
(--vae_workdir) accumulated in the same way. Where the test groups were never
seen in training, verification and few-shot recognition follow. Writes
evaluation.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import os
from typing import Any, NamedTuple

from absl import flags
import jax
import numpy as np
import tqdm

from experiments import cli, presets, recognition_rows, runs
from experiments.cli import UserError
from experiments.datasets.splits import Splits, split_images
from mlvae_jax import checkpoint, probes, training
from mlvae_jax.evidence import product_of_normals
from mlvae_jax.model import Model, Params
from mlvae_jax.normal import Normal
from mlvae_jax.probes import Examples
from mlvae_jax.store import GroupedImages

KS = tuple(range(1, 11))  # As in fig. 6c.
_ENCODE_ROWS = 1024
# What is enough of a large data set; in a packed store the first groups are a
# random choice.
_MAX_PROBE_GROUPS, _MAX_PROBE_IMAGES = 1000, 50_000
_MAX_ELBO_IMAGES = 50_000
_SEED = 0  # Of everything random in the evaluation.


class Code(NamedTuple):
  """Something that a probe is to read.

  Attributes:
    name: as evaluation.json has it.
    posteriors: per split (train, validation, test), Normal of `[N, D]`.
    ks: images of evidence to accumulate.
    repeat_ks: further k for which the first result stands, because the code
      does not depend on k.
    sources: 'mean' and 'sample', or one of them.
  """

  name: str
  posteriors: tuple[Normal, Normal, Normal]
  ks: tuple[int, ...]
  repeat_ks: tuple[int, ...] = ()
  sources: tuple[str, ...] = ('mean', 'sample')


def main() -> None:
  """Reads the flags and evaluates a run."""
  values = flags.FLAGS.flag_values_dict()
  workdir = runs.require_workdir(values['workdir'])
  ks = parse_ks(values['ks'])
  data = runs.load_data(
      workdir, data_dir=values['data_dir'], store_dir=values['store_dir'])
  evaluate(workdir, data, vae_workdir=values['vae_workdir'],
           ks=ks, probe_steps=values['probe_steps'])
  from experiments import report

  print(report.summary(workdir))


def define_flags() -> None:
  """Defines the flags of this entry point."""
  runs.define_workdir_flags()
  flags.DEFINE_string(
      'vae_workdir', None, 'Run of a VAE on the same data to compare with.')
  flags.DEFINE_list(
      'ks', list(map(str, KS)), 'Numbers of images of evidence per group.')
  flags.DEFINE_integer(
      'probe_steps', 1000, 'Optimisation steps of a probe.', lower_bound=1)


def parse_ks(values: list[str]) -> tuple[int, ...]:
  """The numbers of --ks, sorted; exits with 2 where they are none."""
  if not values or not all(v.isdigit() and int(v) > 0 for v in values):
    cli.bad_flag(
        f'expected --ks as comma-separated integers >= 1, got {values}')
  return tuple(sorted({int(v) for v in values}))


def evaluate(
    workdir: str,
    data: Splits,
    *,
    vae_workdir: str | None = None,
    ks: tuple[int, ...] = KS,
    probe_steps: int = 1000,
) -> dict[str, Any]:
  """Evaluates a run and writes its evaluation.json.

  Args:
    workdir: of the run.
    data: the run's data set.
    vae_workdir: of a VAE on the same data, or None.
    ks: numbers of images of evidence per group.
    probe_steps: optimisation steps of a probe.

  Returns:
    What evaluation.json holds.
  """
  model, params = runs.load_model(workdir)
  config, _ = runs.read_run(workdir)
  vae = runs.load_model(vae_workdir) if vae_workdir else None
  if vae is not None and vae[0].image_shape != model.image_shape:
    raise UserError(
        f'{vae_workdir} is a model of images of {vae[0].image_shape}, not of '
        f'{model.image_shape}')
  splits = probe_splits(data)
  # Where no label has k images there is nothing to say of k.
  largest = min(np.diff(split.offsets).max() for split in splits)
  ks = tuple(k for k in ks if k <= largest)
  rows = list(_run_probes(
      splits, _codes(model, params, vae, splits, ks), ks, probe_steps))
  result = {
      'probes': rows,
      **({} if data.shares_groups else _recognise(
          model, params, vae, data.test)),
      'elbo': _elbos(model, params, data, config),
      'protocol': {
          'step': checkpoint.Checkpoints(
              workdir, read_only=True).latest_step,
          'classifier': 'two hidden layers of 256 units',
          'probe_steps': probe_steps, 'seed': _SEED,
          'examples': [len(split) for split in splits],
          'vae_workdir': vae_workdir,
          'unseen_groups': not data.shares_groups,
      },
  }
  cli.write_atomically(
      os.path.join(workdir, 'evaluation.json'),
      json.dumps(result, indent=1) + '\n')
  return result


def probe_splits(data: Splits
                 ) -> tuple[GroupedImages, GroupedImages, GroupedImages]:
  """Images to train, choose and score probes on.

  Where no group is in two splits, the probes see test groups only, those of
  at least five images: the images of each are divided 60/20/20.
  """
  if data.shares_groups:
    return data.train, data.validation, data.test
  test = _first_groups(data.test)
  sizes = np.diff(test.offsets)
  large = np.flatnonzero(sizes >= 5)
  if not len(large):
    large = np.arange(test.num_groups)
  rows = np.concatenate(
      [np.arange(*test.offsets[g:g + 2]) for g in large])
  divided = split_images(GroupedImages.from_labels(
      test.images[rows], np.repeat(np.arange(len(large)), sizes[large]),
      [test.names[g] for g in large], data.grouping), (0.2, 0.2))
  return divided.train, divided.validation, divided.test


def _first_groups(data: GroupedImages) -> GroupedImages:
  """As many groups, from the first on, as are enough for an evaluation."""
  within = np.searchsorted(data.offsets, _MAX_PROBE_IMAGES, side='right') - 1
  return data.slice_groups(
      0, int(max(1, min(data.num_groups, _MAX_PROBE_GROUPS, within))))


def _recognise(model: Model, params: Params, vae, test: GroupedImages
               ) -> dict[str, Any]:
  """The sections on recognition of the test groups."""
  test = _first_groups(test)
  untrained = model.init(jax.random.key(_SEED))
  codes = encode_rows(model, params, test.images)
  codes |= {f'untrained_{name}': q for name, q in encode_rows(
      model, untrained, test.images).items()}
  if vae is not None:
    codes['vae'] = next(iter(encode_rows(*vae, test.images).values()))
  pixels = _pixels(test.images)
  codes['pixels'] = pixels - pixels.mean(axis=0)
  return {'verification': recognition_rows.verification_rows(
              codes, test.offsets),
          'few_shot': recognition_rows.few_shot_rows(codes, test.offsets)}


def encode_rows(model: Model, params: Params, images: np.ndarray
                ) -> dict[str, Normal]:
  """Encodes many images; per factor a Normal of `[N, D]` NumPy arrays."""
  encode = jax.jit(model.encode)
  parts = [
      jax.device_get(encode(params, images[i:i + _ENCODE_ROWS]))
      for i in range(0, len(images), _ENCODE_ROWS)]
  return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def _codes(model: Model, params: Params, vae, splits, ks: tuple[int, ...]
           ) -> Iterator[Code]:
  """Everything to probe: the factors, and the controls."""
  more = tuple(k for k in ks if k > 1)

  def encoded(model, params):
    found = [encode_rows(model, params, s.images) for s in splits]
    return {f.name: tuple(q[f.name] for q in found) for f in model.factors}

  posteriors = encoded(model, params)
  untrained = encoded(model, model.init(jax.random.key(_SEED)))
  for factor in model.factors:
    # A VAE's code is accumulated as if it were grouped (paper, section 4).
    accumulates = factor.grouping is not None or not model.grouped
    which = (ks, ()) if accumulates else ((1,), more)
    yield Code(factor.name, posteriors[factor.name], *which)
    yield Code(f'untrained_{factor.name}', untrained[factor.name], *which,
               sources=('mean',))
    if not accumulates:
      yield Code(
          f'{factor.name}_accumulated', posteriors[factor.name], more)
  if vae is not None:
    for q in encoded(*vae).values():
      yield Code('vae', q, ks)


def _run_probes(splits, codes: Iterator[Code], ks: tuple[int, ...],
                probe_steps: int) -> Iterator[dict[str, Any]]:
  """Rows of evaluation.json's "probes"."""
  todo = [
      (code.name, source, k, code.repeat_ks,
       lambda rows, split, q=code.posteriors, source=source: _accumulate(
           Normal(*(v[rows] for v in q[split])), source))
      for code in codes for source in code.sources for k in code.ks]
  todo += [
      ('pixels', 'mean', k, (),
       lambda rows, split: _mean_pixels(splits[split].images, rows))
      for k in ks]
  for name, source, k, repeat_ks, features in tqdm.tqdm(
      todo, desc='probes', unit='probe', dynamic_ncols=True):
    score = _probe(splits, k, features, probe_steps)
    if score is not None:
      for any_k in (k, *repeat_ks):
        yield {'code': name, 'source': source, 'k': any_k, **score._asdict()}


def _probe(splits, k: int, features: Callable[..., np.ndarray],
           probe_steps: int) -> probes.Score | None:
  """Probes features(rows `[M, k]`, split) for groups of k images.

  None where a split has no label of k images.
  """
  examples = []
  for number, split in enumerate(splits):
    rows, labels = probes.evidence_windows(split.offsets, k, _SEED + number)
    if not len(rows):
      return None
    examples.append(Examples(features(rows, number), labels))
  return probes.probe(
      *examples, num_classes=splits[0].num_groups, seed=_SEED,
      num_steps=probe_steps)


def _accumulate(q: Normal, source: str) -> np.ndarray:
  """Codes `[M, D]` of groups, from the posteriors `[M, k, D]` of members."""
  num_groups, k, dim = q.mean.shape
  group = product_of_normals(
      Normal(*(value.reshape(-1, dim) for value in q)),
      np.repeat(np.arange(num_groups), k), num_groups)
  if source == 'mean':
    return np.asarray(group.mean)
  return np.asarray(group.sample(jax.random.key(_SEED)))


def _mean_pixels(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Mean image of each group as `_pixels`, `[M, D]`."""
  total = np.zeros((len(rows), *images.shape[1:]), np.float32)
  for column in rows.T:
    total += images[column]
  return _pixels(total / rows.shape[1])


def _pixels(images: np.ndarray) -> np.ndarray:
  """Pixels `[N, D]` on [0, 1], averaged in blocks to at most 32x32.

  For recognition these are as good as larger images, and cost less.
  """
  num, height, width, channels = images.shape
  down, right = (
      max(f for f in range(1, size + 1) if size % f == 0
          and (f == 1 or size // f >= 32)) for size in (height, width))
  blocks = images.reshape(
      num, height // down, down, width // right, right, channels)
  small = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
  return small.reshape(num, -1)


def _elbos(model: Model, params: Params, data: Splits, config: presets.Config
           ) -> dict[str, Any]:
  """The ELBO of each split, in batches like those of training."""
  return {
      name: training.evaluate_elbo(
          model, params,
          runs.make_feed(model, getattr(data, name), config, shuffle=False),
          seed=_SEED, max_images=_MAX_ELBO_IMAGES)
      for name in ('train', 'validation', 'test')}


if __name__ == '__main__':
  define_flags()
  cli.run(main)
