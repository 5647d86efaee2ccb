"""ML-VAE and SVI side by side: curves, costs, figure."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest

from experiments.benchmarks import svi_comparison
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import folder
from experiments.runs import loop
from experiments.runs.build import make_model
from experiments.runs.workdir import open_workdir


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  """Two short runs on 60 tiny images."""
  root = tmp_path_factory.mktemp('runs')
  rng = np.random.default_rng(0)
  for group in 'ab':
    (root / 'images' / group).mkdir(parents=True)
    for i in range(30):
      Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(
          root / 'images' / group / f'{i}.png')
  config = dataclasses.replace(
      presets.without_extras(presets.PRESETS['folder']),
      data_dir=str(root / 'images'),
      store_dir=str(root / 'store'), image_size=8,
      factors='content:2:group,style:2', hidden_sizes=(8,), steps=4,
      groups_per_batch=2, max_group_size=4, chunk_steps=2, eval_every=2,
      split_fractions=(0.2, 0.2))
  data = folder.load(config)
  for model_name in ('mlvae', 'svi'):
    changed = dataclasses.replace(config, model=model_name)
    model = make_model(changed, data)
    workdir = str(root / model_name)
    with open_workdir(workdir, changed, model, data.content, resume=True):
      loop.train(workdir, changed, model, data)
  return str(root / 'mlvae'), str(root / 'svi')


@pytest.mark.slow
def test_both_runs_are_measured_and_drawn(workdirs):
  found = svi_comparison.compare(*workdirs, steps=(2, 50), num_images=8)
  assert [row['steps'] for row in found['costs']] == [0, 2, 50]
  assert all(row['milliseconds'] > 0 for row in found['costs'])
  # More steps of inference find better posteriors.
  assert found['costs'][2]['elbo_per_image'] > found['costs'][1][
      'elbo_per_image']
  assert [len(curve) for curve in found['curves'].values()] == [2, 2]
  assert found['images'] == 7  # Four of a group, and all three of the other.
  drawing = svi_comparison.draw(json.loads(json.dumps(found)))
  assert len(drawing.figure.axes) == 2 and 'SVI' in drawing.caption
  assert len(svi_comparison.summary(found).splitlines()) == 4


def test_runs_of_the_wrong_kind_are_refused(workdirs):
  with pytest.raises(UserError, match='--svi_workdir is not a run of'):
    svi_comparison.compare(workdirs[0], workdirs[0])
