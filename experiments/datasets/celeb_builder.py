"""Faces by identity as a TFDS data set, written and read without TensorFlow.

  from experiments.datasets.celeb_builder import Celeb

  Celeb(data_dir=TFDS, source_dir=FACES, top_k=10).download_and_prepare()
  tfds.data_source('celeb', data_dir=TFDS, split='train')[0]

FACES is anything that `sources.detect` accepts: MS-Celeb-1M's TSV files, a
folder per identity, or a CSV file, of which one grouping is kept. The images
are written to array_record in their original encoding. Splits and order are
those of the packed store of the same source: identities by
`packed.group_order`, the images of each by rank. The source is read twice: the
first pass finds the images to keep (`celeb_index`), the second copies them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import json
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from experiments.cli import UserError
from experiments.datasets.celeb_index import Index, Row, fill, split
from experiments.datasets.sources import records
from experiments.datasets.sources.records import Source
from experiments.datasets.store import packed
from experiments.datasets.store.settings import StoreSettings

_CHECK_SIZE = 16  # Pixels of a side; large JPEGs decode fastest when small.

_DESCRIPTION = """\
Faces grouped by identity, in their original encoding. No identity is in two
splits. Records are sorted by identity, in a random but fixed order of
identities, and then by rank. Images that cannot be decoded are listed in
bad_images.jsonl instead.
"""
_CITATION = """\
@inproceedings{guo2016msceleb,
  title={{MS-Celeb-1M}: A Dataset and Benchmark for Large-Scale Face
         Recognition},
  author={Guo, Yandong and Zhang, Lei and Hu, Yuxiao and He, Xiaodong and
          Gao, Jianfeng},
  booktitle={European Conference on Computer Vision (ECCV)},
  year={2016}
}
"""


class Celeb(tfds.core.GeneratorBasedBuilder):
  """TFDS builder of faces by identity.

  `source_dir` and the way to read it are arguments of the constructor and not
  a BuilderConfig: a user's folder has no name that a config could have, and
  `celeb` alone opens a prepared data set, for which no argument is needed.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
      'Put the .tsv files of MS-Celeb-1M (aligned), or a folder of images per '
      'identity, into manual_dir, or pass source_dir to the builder.')

  def __init__(self, *, source_dir: str | os.PathLike | None = None,
               top_k: int = 0, sort_by: str | None = None,
               reading: Mapping[str, Any] | None = None,
               file_format: Any = None, **kwargs: Any):
    """Creates a builder.

    Args:
      source_dir: path of the source, see `sources.detect`; None is TFDS's
        manual_dir.
      top_k: number of images with the best search ranks to keep per identity
        of a TSV; 0 keeps all. Ignored for a source without ranks.
      sort_by: grouping of a CSV to use as identity; None is the first.
      reading: read_as, group_level, nested_groupings, black and white of
        `StoreSettings`, if they differ from its defaults.
      file_format: file format of TFDS; None is array_record. Most others need
        TensorFlow.
      **kwargs: arguments of TFDS's builders: data_dir, version.
    """
    self._source_dir = source_dir and os.fspath(source_dir)
    self._choices = StoreSettings(
        _CHECK_SIZE, top_k, sort_by, **(reading or {}))
    super().__init__(file_format=file_format or 'array_record', **kwargs)
    # TFDS pickles a builder as the arguments of its constructor.
    self._original_state.update(
        source_dir=self._source_dir, top_k=top_k, sort_by=sort_by,
        reading=reading, file_format=file_format)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self,
        description=_DESCRIPTION,
        citation=_CITATION,
        features=tfds.features.FeaturesDict({
            # TFDS decodes a grey JPEG into three equal channels.
            'image': tfds.features.Image(shape=(None, None, 3)),
            'identity': tfds.features.Text(),
            'rank': tfds.features.Scalar(np.int64),
            'name': tfds.features.Text(doc='File, or file:line of a TSV.'),
        }),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict())

  def _split_generators(self, dl_manager: Any) -> dict[str, _Examples]:
    source = self._choices.detect(
        self._source_dir or str(dl_manager.manual_dir))
    index = Index(self._choices.top_k if source.has_ranks else 0)
    # While TFDS prepares, `data_dir` is a temporary folder, which becomes the
    # data set: the file is part of it, and disappears after a failure.
    path = os.path.join(self.data_dir, packed.BAD_IMAGES)
    with open(path, 'w', encoding='utf-8') as bad_file:
      fill(index, source, bad_file, self._choices.pixels)
    self.info.metadata.update(
        _settings(source, self._choices), num_bad_images=index.num_bad)
    return {
        name: self._generate_examples(source, rows, index.mean_bytes)
        for name, rows in split(index, source).items()}

  def _generate_examples(self, source: Source, rows: list[Row],
                         mean_bytes: float) -> _Examples:
    return _Examples(source, rows, mean_bytes)

  def _download_and_prepare(self, dl_manager: Any,
                            download_config: Any) -> None:
    """Writes the splits in their order.

    TFDS's own method shuffles, which separates the images of an identity, and
    needs TensorFlow for splits of more than 1 GB.
    """
    config = download_config.get_shard_config()
    self.info.set_splits(tfds.core.SplitDict([
        self._write_split(name, examples, config)
        for name, examples in self._split_generators(dl_manager).items()]))

  def _write_split(self, name: str, examples: _Examples,
                   config: Any) -> tfds.core.SplitInfo:
    template = self._get_filename_template(name)
    num_shards = config.get_number_shards(examples.num_bytes, len(examples))
    ends = np.arange(num_shards + 1) * len(examples) // num_shards
    paths = [
        os.fspath(template.sharded_filepath(shard_index=i,
                                            num_shards=num_shards))
        for i in range(num_shards)]
    writer = self._example_writer()
    with tqdm.tqdm(total=len(examples), desc=f'writing {name}', unit='image',
                   dynamic_ncols=True) as bar:
      for path, start, stop in zip(paths, ends, ends[1:]):
        writer.write(path, self._serialized(examples, start, stop, bar))
    return tfds.core.SplitInfo(
        name=name, shard_lengths=np.diff(ends).tolist(),
        num_bytes=sum(map(os.path.getsize, paths)), filename_template=template)

  def _serialized(self, examples: _Examples, start: int, stop: int,
                  bar: tqdm.tqdm) -> Iterator[tuple[int, bytes]]:
    for i in range(start, stop):
      key, example = examples[i]
      yield key, self.info.features.serialize_example(example)
      bar.update()


def write(source_dir: str | None, tfds_dir: str, top_k: int = 0,
          sort_by: str | None = None,
          reading: Mapping[str, Any] | None = None) -> Celeb:
  """Writes a source as a TFDS data set, unless it is there already.

  Args:
    source_dir: path of the source, see `sources.detect`.
    tfds_dir: folder of TFDS data sets, in which `celeb` is created.
    top_k: number of images to keep per identity of a TSV; 0 keeps all.
    sort_by: grouping of a CSV to use as identity; None is the first.
    reading: settings of reading, see `Celeb`.

  Returns:
    The builder of the prepared data set.

  Raises:
    UserError: when the source cannot be used, or the data set that is there
      is of another source.
  """
  choices = StoreSettings(_CHECK_SIZE, top_k, sort_by, **(reading or {}))
  source = choices.detect(source_dir)
  tfds_dir = os.path.abspath(os.path.expanduser(tfds_dir))
  source_dir = os.path.abspath(os.path.expanduser(source_dir))
  # What is written would be read as images.
  if _is_inside(tfds_dir, source_dir):
    raise UserError(
        f'{tfds_dir} is in the source itself; choose another --tfds_dir')
  builder = Celeb(data_dir=tfds_dir, source_dir=source_dir, top_k=top_k,
                  sort_by=sort_by, reading=reading)
  if not builder.is_prepared():
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return builder
  found, wanted = dict(builder.info.metadata), _settings(source, choices)
  if any(found.get(key) != value for key, value in wanted.items()):
    raise UserError(
        f'{builder.data_dir} was written from another source, from one that '
        'has changed since, or with other flags, such as --celeb_top_k; delete '
        'it or choose another --tfds_dir')
  return builder


class _Examples(Sequence):
  """The keys and examples of a split, read when they are accessed."""

  def __init__(self, source: Source, rows: list[Row], mean_bytes: float):
    self._source, self._rows = source, rows
    self.num_bytes = int(mean_bytes * len(rows))

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, i: int) -> tuple[int, dict[str, Any]]:
    row = self._rows[i]
    if isinstance(row.at, str):
      with open(row.at, 'rb') as file:
        image = file.read()
      name = records.readable(os.path.basename(row.at))
    else:
      record = next(self._source.records(json.loads(row.at)), None)
      if record is None or record.problem or (
          (record.group, record.rank) != (row.identity, row.rank)):
        raise UserError(
            f'{self._source.description} has changed while it was read; run '
            'the command again')
      image, name = record.image, os.path.basename(record.where)
    return int(i), {
        'image': image, 'identity': row.identity, 'rank': row.rank,
        'name': name}


def _settings(source: Source, choices: StoreSettings) -> dict[str, Any]:
  """The metadata by which a prepared data set is recognised."""
  return {'fingerprint': source.fingerprint(),
          'top_k': choices.top_k if source.has_ranks else 0,
          'black': choices.black, 'white': choices.white,
          'order_seed': packed.ORDER_SEED}


def _is_inside(path: str, folder: str) -> bool:
  folder = os.path.realpath(folder)
  return os.path.commonpath([os.path.realpath(path), folder]) == folder
