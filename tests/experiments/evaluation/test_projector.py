"""Files of codes for the projector of TensorBoard."""

import re

import numpy as np

from experiments.datasets.splits import Splits
from experiments.evaluation import projector
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import encode_rows
from mlvae_jax.data.grouped import GroupedData
from tests.helpers.lit_people import MODEL, random_images


def _context(params, data):
  return Context({'trained': (MODEL, params)},
                 Splits(data, data, data, True))


def _lines(path):
  return [line.split('\t') for line in path.read_text().splitlines()]


def test_codes_and_groups_have_a_line_for_each_row(params, tmp_path):
  data = random_images(30)
  path = projector.write(str(tmp_path), _context(params, data))
  assert path == str(tmp_path / 'projector_config.pbtxt')
  text = (tmp_path / 'projector_config.pbtxt').read_text()
  found = dict(re.findall(
      r'embeddings {\n  tensor_name: "(.*) \(test\)"\n'
      r'  tensor_path: "(.*)"\n  metadata_path: "projector/test/metadata.tsv"\n'
      r'}\n', text))
  assert list(found) == [f.name for f in MODEL.factors]
  encoded = encode_rows(MODEL, params, data.x)
  for name, tensors in found.items():
    np.testing.assert_allclose(
        np.array(_lines(tmp_path / tensors), float), encoded[name].mean,
        rtol=1e-4, atol=1e-6)
  head, *lines = _lines(tmp_path / 'projector' / 'test' / 'metadata.tsv')
  assert head == list(data.groupings) and len(lines) == 30
  for column, grouping in enumerate(data.groupings):
    ids, names = data.labels_of(grouping)
    assert [line[column] for line in lines] == [
        names[i] if i >= 0 else '?' for i in ids]


def test_there_is_a_limit_and_names_stay_in_their_cells(
    params, tmp_path, monkeypatch):
  monkeypatch.setattr(projector, '_MAX_ROWS', 7)
  x = random_images(20).x
  data = GroupedData.from_labels(
      x, np.zeros(20, int), ['a\tb\nc'], 'who',
      row_names=np.array([f'{i} \t'.encode() for i in range(20)]))
  projector.write(str(tmp_path), _context(params, data))
  head, *lines = _lines(tmp_path / 'projector' / 'test' / 'metadata.tsv')
  assert head == ['who', 'row'] and len(lines) == 7
  assert {line[0] for line in lines} == {'a b c'}
  assert len(_lines(tmp_path / 'projector' / 'test' / 'who.tsv')) == 7


def test_one_grouping_has_no_line_of_headings(params, tmp_path):
  data = GroupedData.from_labels(
      random_images(4).x, [0, 0, 1, 1], ['a', 'b'], 'who')
  projector.write(str(tmp_path), _context(params, data))
  assert _lines(tmp_path / 'projector' / 'test' / 'metadata.tsv') == [
      ['a'], ['a'], ['b'], ['b']]
