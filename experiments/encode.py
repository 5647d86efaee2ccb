"""Encodes images with a trained run, and writes the codes to files.

  python -m experiments.encode --workdir=RUN --output=CODES
  python -m experiments.encode --workdir=RUN --data_dir=PHOTOS --output=CODES

Reads whatever `experiments.train` reads, of any size: by default the run's own
data, otherwise what --data_dir names, with the settings of the run. Nothing is
held out: every image is encoded. CODES becomes a folder of

  images.npz           a row per image: `source` (its name), the name of its
                       group in each grouping, and FACTOR_mean and
                       FACTOR_variance, each image alone
  groups_FACTOR.npz    a row per group, sorted by name: name, count (of its
                       images), mean and variance, given all its images
  evidence.npz         sums over the images of each group in float64, to which
                       those of further images can be added
  about.json           where the codes are from

With --format=parquet tables are .parquet (needs `pip install
'mlvae_jax[parquet]'`). After an interruption the same command resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import json
import os
from typing import Any

from absl import flags
import numpy as np
import tqdm

from experiments import cli
from experiments.cli import UserError
from experiments.config import options
from experiments.config.flags import Path, Setting, define
from experiments.config.settings import Config
from experiments.datasets import whole
from experiments.datasets.splits import Scale
from experiments.datasets.whole import Whole
from experiments.encoding import evidence, files, rows, shards
from experiments.encoding.evidence import Evidence, Sums
from experiments.encoding.rows import Groups, Prepared, Range
from experiments.encoding.shards import Shards
from experiments.evaluation.encoding import encode_rows
from experiments.evaluation.versions import versions
from experiments.runs.reading import load_model, parse_step, read_run
from experiments.runs.workdir import SCALE_FILE, read_scale
from mlvae_jax.files import write_atomically
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import loading

_SUBJECT = 'Codes'
_SHARD_ROWS = 8192  # That may have to be encoded again after an interruption.
# Data sets that are not made of files of the user's.
_WITHOUT_FILES = ('mnist5k', 'shapes')
_FLAGS = {
    'output': Setting(
        'Folder to write, which must be empty or not exist yet.', _SUBJECT,
        Path),
    'format': Setting(
        'Format of the tables.', _SUBJECT, default='npz',
        choices=files.FORMATS),
    'split': Setting(
        'Split whose images are encoded, or all.', _SUBJECT, default='all',
        choices=whole.SPLITS),
}


def main() -> None:
  """Reads the flags and encodes a data set."""
  values = flags.FLAGS.flag_values_dict()
  for name in ('workdir', 'output'):
    if not values[name]:
      cli.bad_flag(f'--{name} is required')
  with cli.checked_flags():
    step = parse_step(values['step'])
  for path in encode_run(
      values['workdir'], values['output'], data_dir=values['data_dir'],
      store_dir=values['store_dir'], split=values['split'],
      file_format=values['format'], step=step):
    print(f'{path}: {os.path.getsize(path):,} bytes')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  options.define('workdir', 'step')
  options.define('data_dir', text=(
      'Folder or file that holds the data to encode; by default the data of '
      'the run.'))
  options.define('store_dir')
  for name, option in _FLAGS.items():
    define(name, option)


def encode_run(
    workdir: str,
    output: str,
    *,
    data_dir: str | None = None,
    store_dir: str | None = None,
    split: str = 'all',
    file_format: str = 'npz',
    step: int | str = 'latest',
) -> list[str]:
  """Encodes a data set, and writes the codes.

  Args:
    workdir: folder of the run.
    output: folder to write, completely or not at all.
    data_dir: path of the data; None for those of the run.
    store_dir: folder of packed stores; None for that of the run.
    split: name of the split, or 'all'.
    file_format: one of `files.FORMATS`.
    step: step of the checkpoint, as `mlvae_jax.load` takes it.

  Returns:
    The paths of the files.

  Raises:
    UserError: when the run, the data or the output cannot be used.
  """
  files.check_format(file_format)
  output = os.path.abspath(output)
  shards.check_output(output)
  config, values = read_run(workdir)
  _check_model(config, Model.from_dict(values['model']))
  model, params = load_model(workdir, step)
  number = loading.find_step(workdir, step)
  if step == 'latest' and number < config.steps:
    print(f'warning: this run is at step {number:,} of {config.steps:,}; its '
          'codes will change as it is trained')
  config = _with_data(config, data_dir, store_dir)
  data = whole.open_whole(config, split)
  scale = _scale_of(workdir, config, data)
  what = config.data_dir or config.dataset
  total = sum(map(len, data.parts.values()))
  if not total:
    raise UserError(f'{what} has no images in the split {split!r}')
  for part in data.parts.values():
    rows.check_groupings(model, part, what)
    rows.check_shape(model, part.x, what)
  about = {
      'workdir': os.path.abspath(workdir), 'step': number,
      'model': rows.digest_of(model, params), 'dataset': config.dataset,
      'data_dir': config.data_dir, 'split': split, 'factors': {
          f.name: {'dim': f.dim, 'grouping': f.grouping}
          for f in model.factors},
      'group_posterior': model.to_dict()['group_posterior'],
      'num_images': total, 'format': file_format, 'versions': versions()}
  os.makedirs(os.path.dirname(output), exist_ok=True)
  cli.check_writable(os.path.dirname(output))
  todo = rows.ranges(data.parts, (0, 1), _SHARD_ROWS)
  with shards.open_shards(output, {
      **about, 'content': data.content, 'rows': _SHARD_ROWS}) as done:
    _encode(model, params, data, scale, todo, done)
    _write(model, data, todo, done, about)
    done.finish(output)
  return [os.path.join(output, name) for name in sorted(os.listdir(output))]


def _check_model(config: Config, model: Model) -> None:
  if not model.has_encoder:
    raise UserError(
        f'a run of --model={config.model} has no encoder: the posteriors of '
        'new images are found by optimisation; use mlvae_jax.encode_group, or '
        'train with --model=mlvae')
  if model.grouped:
    evidence.check_additive(model.group_posterior)


def _with_data(config: Config, data_dir: str | None, store_dir: str | None
               ) -> Config:
  """The configuration with other data."""
  if data_dir and config.dataset in _WITHOUT_FILES:
    raise UserError(
        f'a run on --dataset={config.dataset} reads no files; leave out '
        '--data_dir')
  return dataclasses.replace(config, **{
      name: path for name, path in (
          ('data_dir', data_dir), ('store_dir', store_dir)) if path})


def _scale_of(workdir: str, config: Config, data: Whole) -> Scale | None:
  """What the run standardised its data with."""
  scale = read_scale(workdir)
  if config.standardise and scale is None and any(
      part.x.dtype != np.uint8 for part in data.parts.values()):
    raise UserError(
        f'{workdir} has no {SCALE_FILE}, with which its data were '
        'standardised; copy the whole folder, or run the same '
        'experiments.train command again')
  return scale


def _encode(model: Model, params: Params, data: Whole, scale: Scale | None,
            todo: list[Range], done: Shards) -> None:
  """Encodes all ranges that are not done yet."""
  missing = [i for i in range(len(todo)) if not done.has(i)]
  total, left = (sum(todo[i].stop - todo[i].start for i in which)
                 for which in (range(len(todo)), missing))
  if left < total:
    print(f'resuming with {total - left:,} images already encoded')
  with tqdm.tqdm(total=total, initial=total - left, desc='encoding',
                 unit='image', dynamic_ncols=True) as bar:
    for i in missing:
      found = encode_rows(model, params, Prepared(
          model, data.parts[todo[i].part], todo[i], scale))
      for name, q in found.items():
        if not all(np.isfinite(value).all() for value in q):
          raise UserError(
              f'the run gives codes of factor {name!r} that are not finite; '
              'choose another checkpoint with --step, or train again')
      done.write(i, found)
      bar.update(todo[i].stop - todo[i].start)


def _write(model: Model, data: Whole, todo: list[Range], done: Shards,
           about: Mapping[str, Any]) -> None:
  """Writes the finished files from the shards."""
  folder = done.output_folder()

  def path(name: str) -> str:
    return os.path.join(folder, f'{name}.{about["format"]}')

  groups = {name: Groups(data.parts, name) for name in model.groupings}
  files.write_table(path('images'), functools.partial(
      _image_blocks, model, data, groups, todo, done))
  found = {f.name: _evidence(model, f, groups[f.grouping], todo, done)
           for f in model.grouped}
  for name, sums in found.items():
    files.write_table(path(f'groups_{name}'), lambda sums=sums: [
        _group_block(model, sums)])
  if found:
    files.write_evidence(os.path.join(folder, 'evidence.npz'), found, about)
  write_atomically(
      os.path.join(folder, 'about.json'), json.dumps(about, indent=1) + '\n')


def _image_blocks(model: Model, data: Whole, groups: Mapping[str, Groups],
                  todo: list[Range], done: Shards) -> Iterator[files.Block]:
  """The table of images."""
  moments = {f'{f.name}_{name}': (f, name) for f in model.factors
             for name in ('mean', 'variance')}
  for i, where in enumerate(todo):

    def moment(factor: Factor, name: str, i: int = i) -> np.ndarray:
      q = model.alone(factor, done.read(i, factor.name))
      return np.asarray(
          q.mean if name == 'mean' else np.exp(q.logvar), np.float32)

    yield {
        'source': functools.partial(
            rows.row_names, data.parts[where.part], where),
        # A grouping may be called like another column.
        **{f'{name}_group' if name in {'source', *moments} else name:
           functools.partial(found.of, where)
           for name, found in groups.items()},
        **{name: functools.partial(moment, *which)
           for name, which in moments.items()}}


def _evidence(model: Model, factor: Factor, groups: Groups,
              todo: list[Range], done: Shards) -> Evidence:
  """The evidence about all groups of a factor."""
  sums = Sums(len(groups.names), factor.dim)
  for i, where in enumerate(todo):
    sums.add(groups.ids(where), evidence.terms(
        model.group_posterior, done.read(i, factor.name)))
  return sums.evidence(groups.names)


def _group_block(model: Model, found: Evidence) -> files.Block:
  """The table of groups."""
  q: Normal = evidence.to_normal(model.group_posterior, found)
  return {
      'name': lambda: list(found.names), 'count': lambda: found.count,
      'mean': lambda: np.asarray(q.mean, np.float32),
      'variance': lambda: np.asarray(np.exp(q.logvar), np.float32)}


if __name__ == '__main__':
  define_flags()
  cli.run(main)
