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

Codes of several parts or of new images are put together, and taken away again,
without encoding anything twice:

  python -m experiments.encode --workdir=RUN --part=0/2 --output=A   # one host
  python -m experiments.encode --workdir=RUN --part=1/2 --output=B   # another
  python -m experiments.encode --merge=A,B --output=CODES
  python -m experiments.encode --merge=CODES --remove=B --output=LEFT

With --format=parquet tables are .parquet (needs `pip install
'mlvae_jax[parquet]'`). After an interruption the same command resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any

from absl import flags
import numpy as np
import tqdm

from experiments import cli
from experiments.cli import UserError
from experiments.config import options
from experiments.config.flags import Path, Setting, define, expand_path
from experiments.config.settings import Config
from experiments.datasets import whole
from experiments.datasets.splits import Scale
from experiments.datasets.whole import Whole
from experiments.encoding import evidence, files, merging, rows, shards
from experiments.encoding.evidence import Evidence, Sums
from experiments.encoding.rows import Groups, Prepared, Range
from experiments.encoding.shards import Shards
from experiments.evaluation.encoding import encode_rows
from experiments.evaluation.versions import versions
from experiments.runs.reading import load_model, parse_step, read_run
from experiments.runs.workdir import SCALE_FILE, read_scale
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
    'part': Setting(
        'Part of the images to encode, as I/N with I from 0 to N - 1, for '
        'several processes with an --output each; --merge puts them together.',
        _SUBJECT, default='0/1'),
    'merge': Setting(
        'Folders of codes to put together, separated by commas, instead of '
        'encoding anything.', _SUBJECT, tuple),
    'remove': Setting(
        'Folders of codes to take away from those of --merge, separated by '
        'commas.', _SUBJECT, tuple),
}


def main() -> None:
  """Reads the flags and encodes a data set."""
  values = flags.FLAGS.flag_values_dict()
  merges = values['merge'] is not None
  for name in ('output',) if merges else ('workdir', 'output'):
    if not values[name]:
      cli.bad_flag(f'--{name} is required')
  for name in ('workdir', 'data_dir') if merges else ('remove',):
    if values[name]:
      cli.bad_flag(f'--merge encodes nothing; leave out --{name}' if merges
                   else '--remove takes away from --merge, which is missing')
  if merges:
    paths = merge(*(
        list(map(expand_path, values[name] or ()))
        for name in ('merge', 'remove')), values['output'])
  else:
    with cli.checked_flags():
      step, share = parse_step(values['step']), parse_part(values['part'])
    paths = encode_run(
        values['workdir'], values['output'], data_dir=values['data_dir'],
        store_dir=values['store_dir'], split=values['split'], share=share,
        file_format=values['format'], step=step)
  for path in paths:
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


def parse_part(text: str) -> tuple[int, int]:
  """The value of --part; a ValueError if it is not I/N with I below N."""
  i, _, n = text.partition('/')
  if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
    raise ValueError(
        f'expected --part=I/N with I from 0 to N - 1, got {text!r}')
  return int(i), int(n)


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
  todo = rows.ranges(data.parts, share, _SHARD_ROWS)
  num_images = sum(where.stop - where.start for where in todo)
  if not todo:
    raise UserError(
        f'the {total:,} images of {what} are too few for {share[1]} parts; '
        'give a smaller N in --part=I/N')
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
  _make_parent(output)
  with shards.open_shards(output, {**about, 'rows': _SHARD_ROWS}) as done:
    _encode(model, params, data, scale, todo, done)
    _write(model, data, todo, done, about)
    done.finish(output)
  return _paths(output)


def merge(merged: Sequence[str], removed: Sequence[str], output: str
          ) -> list[str]:
  """Puts codes of several parts together.

  Args:
    merged: folders whose codes are put together, at least one.
    removed: folders whose codes are taken away from these.
    output: folder to write, completely or not at all.

  Returns:
    The paths of the files.

  Raises:
    UserError: when the codes are not of one model, images would count twice,
      or a folder cannot be used.
  """
  output = os.path.abspath(output)
  shards.check_output(output)
  about = merging.merged_about(merged, removed)
  files.check_format(about['format'])
  _make_parent(output)
  with shards.open_shards(output, about) as done:
    merging.write_merged(done.output_folder(), merged, removed, about)
    done.finish(output)
  return _paths(output)


def _make_parent(output: str) -> None:
  """Makes the folder of an output, and checks that it can be written to."""
  parent = os.path.dirname(output)
  os.makedirs(parent, exist_ok=True)
  cli.check_writable(parent)


def _paths(output: str) -> list[str]:
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


if __name__ == '__main__':
  define_flags()
  cli.run(main)
