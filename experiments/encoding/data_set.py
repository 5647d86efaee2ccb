"""Codes of a data set: encoding its rows, and writing the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import os
from typing import Any

import numpy as np
import tqdm

from experiments import datasets
from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets import whole
from experiments.datasets.splits import Scale
from experiments.datasets.whole import Whole
from experiments.encoding import evidence, files, merging, rows, shards
from experiments.encoding.evidence import Evidence, Sums
from experiments.encoding.rows import Groups, Prepared, Range
from experiments.encoding.shards import Shards
from experiments.evaluation.encoding import encode_rows
from experiments.evaluation.sameness import Spread, same_codes
from experiments.evaluation.versions import versions
from experiments.evaluation.wording import worded
from experiments.runs.reading import load_model, read_run
from experiments.runs.workdir import SCALE_FILE, read_scale
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import loading

_SHARD_ROWS = 8192  # That may have to be encoded again after an interruption.


def encode_run(
    workdir: str,
    output: str,
    *,
    data_dir: str | None = None,
    store_dir: str | None = None,
    split: str = 'all',
    share: tuple[int, int] = (0, 1),
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
    share: (i, n) to encode the i-th of n equal parts, from 0.
    file_format: one of `files.FORMATS`.
    step: step of the checkpoint, as `mlvae_jax.load` takes it.

  Returns:
    The paths of the files.

  Raises:
    UserError: when the run, the data or the output cannot be used.
  """
  files.check_format(file_format)
  output = os.path.abspath(output)
  if os.path.splitext(output)[1] in [f'.{name}' for name in files.FORMATS]:
    raise UserError(
        f'--output={output} should be a folder, in which several files are '
        'written; leave out the extension, and choose their format with '
        '--format')
  shards.check_output(output)
  config, values = read_run(workdir)
  check_model(config, Model.from_dict(values['model']))
  model, params = load_model(workdir, step)
  number = loading.find_step(workdir, step)
  if step == 'latest' and number < config.steps:
    print(f'warning: this run is at step {number:,} of {config.steps:,}; its '
          'codes will change if training continues')
  config = _with_data(config, data_dir, store_dir)
  data = _open_data(config, split, model)
  scale = _scale_of(workdir, config, data)
  todo = rows.ranges(data.parts, share, _SHARD_ROWS)
  if not todo:
    raise UserError(
        f'{config.data_dir or config.dataset} has too few images for '
        f'{share[1]} parts; give a smaller N in --part=I/N')
  num_images = sum(where.stop - where.start for where in todo)
  about = {
      'workdir': os.path.abspath(workdir), 'step': number,
      'model': rows.digest_of(model, params), 'factors': {
          f.name: {'dim': f.dim, 'grouping': f.grouping}
          for f in model.factors},
      'group_posterior': model.to_dict()['group_posterior'],
      'num_images': num_images, 'parts': [{
          'dataset': config.dataset, 'data_dir': config.data_dir,
          'split': split, 'part': '/'.join(map(str, share)),
          'num_images': num_images, 'content': dict(data.content)}],
      'format': file_format, 'versions': versions()}
  shards.make_parent(output)
  with shards.open_shards(output, {**about, 'rows': _SHARD_ROWS}) as done:
    _encode(model, params, data, scale, todo, done)
    _write(model, data, todo, done, about)
    done.finish(output)
  return shards.paths(output)


def check_model(config: Config, model: Model) -> None:
  """Raises a UserError if a model gives no codes that can be added up."""
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
  if data_dir and not datasets.reads_files(config.dataset):
    raise UserError(
        f'a run on --dataset={config.dataset} reads no files; leave out '
        '--data_dir')
  return dataclasses.replace(config, **{
      name: path for name, path in (
          ('data_dir', data_dir), ('store_dir', store_dir)) if path})


def _open_data(config: Config, split: str, model: Model) -> Whole:
  """The rows to encode, once they are known to fit the model."""
  data, what = whole.open_whole(config, split), (
      config.data_dir or config.dataset)
  if not any(map(len, data.parts.values())):
    raise UserError(worded(
        model, f'{what} has no images in the split {split!r}'))
  for part in data.parts.values():
    rows.check_groupings(model, part, what)
    rows.check_shape(model, part.x, what)
  return data


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
    print(worded(model, f'resuming with {total - left:,} images already '
                 'encoded'))
  with tqdm.tqdm(total=total, initial=total - left, desc='encoding',
                 unit=worded(model, 'image'), dynamic_ncols=True) as bar:
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
  spreads = {f.name: Spread() for f in model.factors}
  for i in range(len(todo)):  # Those of an earlier try as well.
    for name, spread in spreads.items():
      spread.add(done.read(i, name))
  for warning in same_codes(model, spreads):
    print(f'warning: {warning}')


def _write(model: Model, data: Whole, todo: list[Range], done: Shards,
           about: dict[str, Any]) -> None:
  """Writes the finished files from the shards."""
  folder = done.output_folder()
  groups = {name: Groups(data.parts, name) for name in model.groupings}
  files.write_table(
      os.path.join(folder, f'images.{about["format"]}'), functools.partial(
          _image_blocks, model, data, groups, todo, done))
  merging.write_groups(folder, {
      f.name: _evidence(model, f, groups[f.grouping], todo, done)
      for f in model.grouped}, about)


def _image_blocks(model: Model, data: Whole, groups: Mapping[str, Groups],
                  todo: list[Range], done: Shards) -> Iterator[files.Block]:
  """The table of images."""
  names = [f.name for f in model.factors]
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
        **{files.group_column(name, names): functools.partial(found.of, where)
           for name, found in groups.items()},
        **{name: functools.partial(moment, *which)
           for name, which in moments.items()}}


def _evidence(model: Model, factor: Factor, groups: Groups,
              todo: list[Range], done: Shards) -> Evidence:
  """The evidence about all groups of a factor."""
  sums = Sums(len(groups.names), factor.dim)
  for i, where in enumerate(tqdm.tqdm(
      todo, desc='combining', unit='block', delay=1, dynamic_ncols=True)):
    sums.add(groups.ids(where), evidence.terms(
        model.group_posterior, done.read(i, factor.name)))
  return sums.evidence(groups.names)
