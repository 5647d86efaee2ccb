"""Prepares a data set of images: decodes it once into the packed store.

  python -m experiments.prepare --dataset=celeb --data_dir=FACES

FACES holds MS-Celeb-1M's TSV files, a folder of images per identity, a
manifest.csv that names images and their groups, or what TFDS prepared. The
same command resumes after an interruption, and says what is there once it is
done; --verify reads the whole store against its checksums.
`experiments.train` prepares by itself where it has to.
--tfds_dir=DIR also writes the images, encoded as they are, as a TFDS data set.
"""

from __future__ import annotations

import dataclasses
import os

from absl import flags

from experiments import cli
from experiments.config import presets
from experiments.datasets import folder, splits
from experiments.datasets.sources import detect, images
from experiments.datasets.store import packed, packing
from mlvae_jax.data.grouped import GroupedImages


def main() -> None:
  """Reads the flags and prepares a data set."""
  values = flags.FLAGS.flag_values_dict()
  preset = presets.PRESETS[values['dataset']]
  names = {field.name for field in dataclasses.fields(preset)}
  config = dataclasses.replace(preset, **{
      name: value for name, value in values.items()
      if name in names and value is not None})
  data = folder.open_images(config)
  if values['verify']:
    packed.verify_store(packing.store_path(**folder.store_settings(config)))
    print('every checksum is right')
  sizes = data.offsets[1:] - data.offsets[:-1]
  print(f'images of {" x ".join(map(str, data.images.shape[1:]))}, '
        f'{sizes.min()} to {sizes.max()} of a group, '
        f'{(sizes > 1).sum():,} groups of more than one')
  for name, (ids, names) in data.others.items():
    print(f'also grouped by {name}: {len(names):,} groups, {(ids < 0).sum():,} '
          'images without a label')
  if config.split_by == 'group':
    _show_splits(config, data)
  if values['tfds_dir']:
    _write_tfds(config, values['tfds_dir'])


def _show_splits(config: presets.Config, data: GroupedImages) -> None:
  found = splits.split_groups(
      data, config.split_fractions or splits.FRACTIONS['group'])
  for name in ('train', 'validation', 'test'):
    split = getattr(found, name)
    print(f'{name}: {len(split):,} images of {split.num_groups:,} groups')


def _write_tfds(config: presets.Config, tfds_dir: str) -> None:
  from experiments.datasets import celeb_builder  # TFDS is slow to import.

  settings = folder.store_settings(config)
  builder = celeb_builder.write(
      settings['data_dir'], tfds_dir, settings['top_k'], settings['sort_by'],
      {name: settings[name]
       for name in ('read_as', 'group_level', 'black', 'white')})
  bad = builder.info.metadata['num_bad_images']
  print(f'TFDS data set: {builder.info.splits.total_num_examples:,} images in '
        f'{builder.data_dir}'
        + (f'; {bad:,} bad images passed over, see {packed.BAD_IMAGES} there'
           if bad else ''))
  print(f'open it with tfds.data_source({builder.name!r}, split=\'train\', '
        f'data_dir={str(builder.data_dir_root)!r})')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  flags.DEFINE_enum(
      'dataset', 'celeb', list(folder.GROUPINGS), 'Data set, and its preset.')
  flags.DEFINE_string(
      'factors', None, 'Of the training to come: images are sorted by the '
      'first grouping that is named, NAME:DIM:GROUPING,...')
  flags.DEFINE_bool('verify', False, 'Read the whole store to check it.')
  cli.define_path(
      'tfds_dir', None, 'Also write the source as a TFDS data set '
      '(array_record) under this folder.')
  define_store_flags()


def define_store_flags() -> None:
  """Defines the flags that say where images come from and how they are kept."""
  cli.define_path('data_dir', None, 'Where the data set\'s files are.')
  cli.define_path(
      'store_dir', None, 'Where packed images are kept; '
      f'{os.path.join("~", ".cache", "mlvae_jax")} by default.')
  flags.DEFINE_integer(
      'image_size', None, 'Pixels of a side, for data sets that resize.',
      lower_bound=4, upper_bound=1024)
  flags.DEFINE_enum(
      'read_as', None, list(detect.READINGS), 'How to read --data_dir where '
      'there are several ways; auto takes the first of these that it finds: a '
      'manifest.csv, a data set of TFDS, .tsv files of MS-Celeb-1M, a folder '
      'per group.')
  flags.DEFINE_integer(
      'group_level', None, 'Level of the folder that names an image\'s group; '
      '1 is the first below --data_dir. Folders of one name are one group. 0 '
      'means 1, but stops with an error where that looks wrong.',
      lower_bound=0)
  flags.DEFINE_enum(
      'resize', None, list(images.RESIZES), 'What to do with images that are '
      'not square: squeeze ignores proportions, crop takes the central square, '
      'pad adds black.')
  flags.DEFINE_float(
      'black', None, 'Value that is black in float, 16-bit and 32-bit images; '
      '0 by default.')
  flags.DEFINE_float(
      'white', None, 'Value that is white in float, 16-bit and 32-bit images; '
      '1 by default for float, 65,535 for integers.')
  flags.DEFINE_integer(
      'celeb_top_k', None, 'Of a TSV, keep this many top-ranked images per '
      'identity; 0 keeps all.', lower_bound=0)
  flags.DEFINE_enum(
      'on_bad_image', None, ['skip', 'fail'],
      'Pass over images that cannot be used, or stop at the first.')


if __name__ == '__main__':
  define_flags()
  cli.run(main)
