"""Encodes images with a trained run, and writes the codes to files.

  python -m experiments.encode --workdir=RUN --output=CODES
  python -m experiments.encode --workdir=RUN --data_dir=PHOTOS --output=CODES

Reads whatever `experiments.train` reads, of any size: by default the run's own
data, otherwise what --data_dir names, with the settings of the run. Every
image is encoded, whatever its split, unless --split names one. CODES becomes a
folder of

  images.npz           a row per image: `source` (its name), the name of its
                       group in each grouping, and FACTOR_mean and
                       FACTOR_variance, each image alone
  groups_FACTOR.npz    a row per group, sorted by name: name, count (of its
                       images), mean and variance, given all its images
  evidence.npz         sums over the images of each group in float64, to which
                       those of further images can be added
  about.json           where the codes are from

Codes of several parts, or of new images, are merged, and can be removed again,
without encoding anything twice:

  python -m experiments.encode --workdir=RUN --part=0/2 --output=A   # one host
  python -m experiments.encode --workdir=RUN --part=1/2 --output=B   # another
  python -m experiments.encode --merge=A,B --output=CODES
  python -m experiments.encode --merge=CODES --remove=B --output=LEFT

To print the groups of CODES that other images most probably belong to, with
probabilities, and to draw them:

  python -m experiments.encode --workdir=RUN --gallery=CODES --query=IMAGES \\
      --output=nearest.png

With --format=parquet tables are .parquet (needs `pip install
'mlvae_jax[parquet]'`). After an interruption the same command resumes.
"""

from __future__ import annotations

import os

from absl import flags

from experiments import cli
from experiments.config import options
from experiments.config.flags import Path, Setting, define, expand_path
from experiments.datasets import whole
from experiments.encoding import answers, data_set, files, merging
from experiments.runs.reading import parse_step

_SUBJECT = 'Codes'
_FLAGS = {
    'output': Setting(
        'Folder to write, which must be empty or not exist yet; with --query, '
        'the PNG file of a figure, which is optional.', _SUBJECT, Path),
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
    'query': Setting(
        'Image, or folder of images, whose nearest groups in the gallery are '
        'printed, instead of encoding anything.', _SUBJECT, Path),
    'gallery': Setting(
        'Folder of codes in which --query looks for groups.', _SUBJECT, Path),
    'nearest': Setting(
        'Number of groups that --query finds for an image.', _SUBJECT, int, 3,
        lower=1, upper=20),
}
# Flags that must be given, and those that only some of the three modes read.
_NEEDED = {'encode': ('workdir', 'output'), 'merge': ('output',),
           'query': ('workdir', 'gallery')}
_ONLY = {'workdir': ('encode', 'query'), 'data_dir': ('encode',),
         'remove': ('merge',), 'query': ('query',), 'gallery': ('query',)}


def main() -> None:
  """Reads the flags and encodes a data set."""
  values = flags.FLAGS.flag_values_dict()
  mode = next((name for name in ('merge', 'query') if values[name]), 'encode')
  for name in _NEEDED[mode]:
    if not values[name]:
      cli.bad_flag(f'--{name} is required')
  for name, modes in _ONLY.items():
    if values[name] and mode not in modes:
      cli.bad_flag(f'--{name} does nothing without --{modes[0]}; leave it out'
                   if mode == 'encode' else
                   f'--{mode} does not use --{name}; leave it out')
  with cli.checked_flags():
    step, share = parse_step(values['step']), parse_part(values['part'])
  if mode == 'merge':
    paths = merging.merge(*(
        list(map(expand_path, values[name] or ()))
        for name in ('merge', 'remove')), values['output'])
  elif mode == 'query':
    paths = answers.find_nearest(
        values['workdir'], values['query'], values['gallery'],
        values['nearest'], values['output'], step=step)
  else:
    paths = data_set.encode_run(
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


if __name__ == '__main__':
  define_flags()
  cli.run(main)
