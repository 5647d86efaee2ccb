"""Compares ML-VAE and SVI: passes over the data, and cost per test image."""

from __future__ import annotations

from collections.abc import Callable
import json
import os
import statistics
import time
from typing import Any

from absl import flags
import jax
import matplotlib
from matplotlib.figure import Figure
import numpy as np
import tqdm

from experiments.cli import UserError
from experiments.config import options
from experiments.config.flags import Path, Setting, define
from experiments.config.settings import RUN
from experiments.pictures.sheets import BLUE, RED, STYLE, Drawing, save
from experiments.runs.reading import (
  check_data,
  load_data,
  load_model,
  read_run,
)
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.files import write_atomically
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.inference import free
from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.training.history import read_metrics

_STEPS = (3, 10, 30, 100, 300, 1000)
_NUM_IMAGES = 1000
_REPEATS = 5
_DRAWS = 10  # Samples of the codes over which an ELBO is averaged.


def main() -> None:
  """Reads the flags, compares the runs and draws the figure."""
  values = flags.FLAGS.flag_values_dict()
  found = compare(values['mlvae_workdir'], values['svi_workdir'],
                  data_dir=values['data_dir'],
                  data_changed=values['data_changed'])
  workdir = values['svi_workdir']
  write_atomically(
      os.path.join(workdir, 'svi.json'), json.dumps(found, indent=1) + '\n')
  path = os.path.join(workdir, 'svi.png')
  with matplotlib.rc_context(STYLE):
    save(draw(found), path)
  print(summary(found))
  print(path)


def define_flags() -> None:
  """Defines the flags of this entry point."""
  for name, what in (('mlvae', 'an ML-VAE'), ('svi', '--model=svi')):
    define(f'{name}_workdir', Setting(
        f'Folder of a run of {what}.', RUN, Path, required=True))
  options.define('data_dir', 'data_changed')


def compare(mlvae_workdir: str, svi_workdir: str,
            data_dir: str | None = None, data_changed: str = 'refuse',
            steps: tuple[int, ...] = _STEPS,
            num_images: int = _NUM_IMAGES) -> dict[str, Any]:
  """Compares two runs of the same data.

  Args:
    mlvae_workdir: workdir of a model with an encoder.
    svi_workdir: workdir of a model without an encoder.
    data_dir: folder of the data, if they have moved.
    data_changed: 'refuse'; or 'accept' to take data other than those recorded.
    steps: numbers of steps of inference to try with the SVI model.
    num_images: number of test images.

  Returns:
    {'curves': {run: rows of passes and validation ELBO per image}, 'costs':
    rows of model, steps, milliseconds and ELBO per test image}.

  Raises:
    UserError: when the runs are not of these kinds, are of different images,
      or the data are not those that both recorded.
  """
  models = {'mlvae': load_model(mlvae_workdir),
            'svi': load_model(svi_workdir)}
  for name, has_encoder in (('mlvae', True), ('svi', False)):
    if models[name][0].has_encoder != has_encoder:
      raise UserError(f'--{name}_workdir is not a run of --model={name}')
  data = load_data(
      svi_workdir, data_changed=data_changed, data_dir=data_dir)
  if data_changed != 'accept':
    check_data(
        mlvae_workdir, read_run(mlvae_workdir)[0], data.content)
  if models['mlvae'][0].observation_shape != data.test.x.shape[1:]:
    raise UserError('the two runs have images of different shapes')
  config, _ = read_run(svi_workdir)
  batch, num_groups = _test_batch(
      models['svi'][0], data.test, num_images, config.max_group_size)
  return {
      'curves': {name: _curve(workdir) for name, workdir in (
          ('mlvae', mlvae_workdir), ('svi', svi_workdir))},
      'costs': _costs(models, batch, num_groups, steps),
      'images': int(batch.mask.sum()),
      'runs': {'mlvae': mlvae_workdir, 'svi': svi_workdir}}


def _test_batch(model: Model, test: GroupedData, num_images: int,
                group_size: int) -> tuple[Batch, dict[str, int]]:
  """Test images, equally many of each group, in sets of at most `group_size`.

  The sets are the groups of the batch: in training, too, groups were pieces of
  at most this size.
  """
  share = max(1, num_images // test.num_groups)
  rows = np.concatenate([
      np.arange(start, min(stop, start + share))
      for start, stop in zip(test.offsets[:-1], test.offsets[1:])])
  ids = {}
  for factor in model.grouped:
    labels = test.labels_of(factor.grouping).ids[rows]
    rank = np.zeros(len(rows), int)
    for label in np.unique(labels):
      here = np.flatnonzero(labels == label)
      rank[here] = np.arange(len(here)) // group_size
    # A set is a pair of group and number of the piece; numbered from 0.
    _, ids[factor.name] = np.unique(
        np.stack([labels, rank]), axis=1, return_inverse=True)
  return Batch(
      jax.device_put(test.x[rows]),
      {name: value.ravel().astype(np.int32) for name, value in ids.items()},
      np.ones(len(rows), bool), np.arange(len(rows), dtype=np.int32)), {
          name: int(value.max()) + 1 for name, value in ids.items()}


def _costs(models: dict[str, tuple[Model, Params]], batch: Batch,
           num_groups: dict[str, int], steps: tuple[int, ...]
           ) -> list[dict[str, Any]]:
  """ELBO and time per test image, of the encoder and of SVI."""
  sizes = tuple(sorted(num_groups.items()))  # Static, so hashable.
  model, params = models['mlvae']
  encode = jax.jit(model.encode)
  rows = [{'model': 'mlvae', 'steps': 0,
           'milliseconds': _time(lambda: encode(params, batch.x), batch),
           'elbo_per_image': _elbo(model, params, batch, num_groups, None)}]
  model, params = models['svi']
  for count in tqdm.tqdm(steps, desc='SVI', unit='setting'):
    def infer(count=count):
      return free.fit(model, params, jax.random.key(0), batch, sizes,
                     num_steps=count)
    rows.append({
        'model': 'svi', 'steps': count, 'milliseconds': _time(infer, batch),
        'elbo_per_image': _elbo(model, params, batch, num_groups, infer())})
  return rows


def _time(function: Callable[[], Any], batch: Batch) -> float:
  """Median milliseconds per image of a function that processes a batch."""
  jax.block_until_ready(function())  # Compiles.
  seconds = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(function())
    seconds.append(time.perf_counter() - start)
  return 1000 * statistics.median(seconds) / len(batch.mask)


def _elbo(model: Model, params: Params, batch: Batch,
          num_groups: dict[str, int], free: dict[str, Normal] | None
          ) -> float:
  """The ELBO per image, averaged over samples of the codes."""
  def one(key):
    return sum_terms(elbo_terms(
        model, params, key, batch, num_groups, free=free)).elbo()
  # One after the other: with vmap all draws would be in memory at once.
  draws = jax.lax.map(one, jax.random.split(jax.random.key(1), _DRAWS))
  return float(draws.mean()) / len(batch.mask)


def _curve(workdir: str) -> list[dict[str, float]]:
  return [{'passes': r['epoch'], 'elbo_per_image': r['elbo_per_image']}
          for r in read_metrics(workdir) if r['split'] == 'validation']


def summary(found: dict[str, Any]) -> str:
  """The costs as a table for the terminal."""
  lines = ['inference      steps   ms per image   ELBO per test image']
  for row in found['costs']:
    lines.append(f'{row["model"]:12} {row["steps"]:7,} '
                 f'{row["milliseconds"]:14.4f} {row["elbo_per_image"]:21.1f}')
  return '\n'.join(lines)


def draw(found: dict[str, Any]) -> Drawing:
  """Draws both comparisons."""
  figure = Figure(figsize=(7.2, 2.8), layout='constrained')
  passes, cost = figure.subplots(1, 2)
  looks = {'mlvae': (BLUE, 'ML-VAE'), 'svi': (RED, 'SVI')}
  for name, (colour, label) in looks.items():
    curve = found['curves'][name]
    passes.plot([r['passes'] for r in curve],
                [r['elbo_per_image'] for r in curve], color=colour,
                label=label)
    points = [r for r in found['costs'] if r['model'] == name]
    cost.plot([r['milliseconds'] for r in points],
              [r['elbo_per_image'] for r in points], marker='o', markersize=4,
              color=colour, label=label)
    if name == 'svi':
      for r in points:
        cost.annotate(f'{r["steps"]}', (r['milliseconds'],
                                        r['elbo_per_image']), xytext=(3, -8),
                      textcoords='offset points', fontsize=6)
  values = [r['elbo_per_image'] for c in found['curves'].values() for r in c]
  if values:
    # The first validations are so low that they would flatten the rest.
    high = max(values)
    passes.set_ylim(max(min(values), high - 60), high + 3)
  passes.set(title='Training', ylabel='validation ELBO, nats',
             xlabel='passes over the training images')
  cost.set(title='Inference', xscale='log', ylabel='test ELBO, nats',
           xlabel='milliseconds per image')
  cost.margins(0.1)  # Leaves room for the numbers next to the points.
  for ax in (passes, cost):
    ax.legend(loc='lower right')
  return Drawing(figure, (
      'An encoder compared with free posteriors (SVI). Left: the ELBO per '
      'validation image against passes over the training images. Right: the '
      'ELBO per test image that inference reaches, against the time it takes '
      'per image; for SVI, the numbers next to the points are steps of '
      'optimisation.'))
