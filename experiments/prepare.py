"""Prepares a data set of images: decodes it once into the packed store.

  python -m experiments.prepare --dataset=celeb --data_dir=FACES

FACES holds MS-Celeb-1M's TSV files, a folder of images per identity, a
manifest.csv that names images and their groups, or a data set prepared by
TFDS. After an interruption the same command resumes; once the store is
complete, the command only describes it. --verify checks the whole store
against its checksums. `experiments.train` prepares a missing store by itself.
--tfds_dir=DIR also writes the images, in their original encoding, as a TFDS
data set.
"""

from __future__ import annotations

from absl import flags

from experiments import cli
from experiments.config import settings
from experiments.config.flags import Path, Setting, define
from experiments.config.from_flags import make_config
from experiments.config.settings import DATA, SETTINGS, Config
from experiments.datasets import folder, splits
from experiments.datasets.store import packed
from experiments.datasets.store.settings import store_path
from mlvae_jax.data.grouped import GroupedData


def main() -> None:
  """Reads the flags and prepares a data set."""
  values = flags.FLAGS.flag_values_dict()
  with cli.checked_flags():
    config = make_config(values)
    folder.check(config)
  data = folder.open_images(config)
  if values['verify']:
    packed.verify_store(store_path(**folder.store_settings(config)))
    print('all checksums are correct')
  sizes = data.offsets[1:] - data.offsets[:-1]
  print(f'images of {" x ".join(map(str, data.x.shape[1:]))}, '
        f'{sizes.min()} to {sizes.max()} per group, '
        f'{(sizes > 1).sum():,} groups with more than one')
  for name, (ids, names) in data.others.items():
    print(f'also grouped by {name}: {len(names):,} groups, {(ids < 0).sum():,} '
          'images without a label')
  if config.split_by != 'image':
    _show_splits(config, data)
  if values['tfds_dir']:
    _write_tfds(config, values['tfds_dir'])


def _show_splits(config: Config, data: GroupedData) -> None:
  found = splits.split(data, config)
  for name in ('train', 'validation', 'test'):
    split = getattr(found, name)
    print(f'{name}: {len(split):,} images of {split.num_groups:,} groups')


def _write_tfds(config: Config, tfds_dir: str) -> None:
  from experiments.datasets import celeb_builder  # TFDS is slow to import.

  found = folder.store_settings(config)
  builder = celeb_builder.write(
      found['data_dir'], tfds_dir, found['top_k'], found['sort_by'],
      {name: found[name] for name in (
          'read_as', 'group_level', 'nested_groupings', 'black', 'white')})
  bad = builder.info.metadata['num_bad_images']
  print(f'TFDS data set: {builder.info.splits.total_num_examples:,} images in '
        f'{builder.data_dir}'
        + (f'; {bad:,} bad image{"s" if bad > 1 else ""} skipped, see '
           f'{packed.BAD_IMAGES} there'
           if bad else ''))
  print(f'open it with tfds.data_source({builder.name!r}, split=\'train\', '
        f'data_dir={str(builder.data_dir_root)!r})')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  # Only data sets that have a packed store can be prepared.
  settings.define('dataset', default='celeb', choices=tuple(folder.GROUPINGS))
  settings.define(*(name for name, setting in SETTINGS.items()
                    if setting.subject == DATA and name != 'dataset'))
  settings.define('factors', text=(
      'Latent factors of the training that follows, as NAME:DIM:GROUPING,...; '
      'images are sorted by the first grouping that they name.'))
  define('verify', Setting(
      'Whether to check the whole store against its checksums.', DATA, bool,
      False))
  define('tfds_dir', Setting(
      'Folder in which to also write the source as a TFDS data set '
      '(array_record).', DATA, Path))


if __name__ == '__main__':
  define_flags()
  cli.run(main)
