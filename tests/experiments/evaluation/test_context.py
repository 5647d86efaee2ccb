"""What the sections of an evaluation share."""

import dataclasses

import numpy as np

from experiments.evaluation import encoding
from experiments.evaluation.context import Context
from tests.helpers.lit_people import MODEL, splits


def test_the_same_images_are_encoded_once(params, monkeypatch):
  asked, encode_rows = [], encoding.encode_rows

  def counted(model, params, images, rows=None, **kwargs):
    asked.append(len(rows))
    return encode_rows(model, params, images, rows, **kwargs)

  monkeypatch.setattr(encoding, 'encode_rows', counted)
  context = Context({'trained': (MODEL, params)}, splits())
  rows = np.arange(len(context.scored))
  found = [
      codes.alone('test', 'who', rows).mean for codes in (
          context.codes([context.first_labels])['trained'],
          context.codes(context.all_labels)['trained'],
          context.encoded('trained', {'test': rows}))]
  assert asked == [len(rows)]
  for other in found[1:]:
    np.testing.assert_array_equal(other, found[0])


def test_labels_are_of_the_split_that_is_scored():
  context = Context({}, splits(), split='validation')
  assert context.scored is context.data.validation
  assert context.first_labels.parts[2].split == 'validation'
  assert [labels.grouping for labels in context.all_labels] == ['who', 'light']


def test_the_first_labels_may_be_limited():
  context = Context({}, splits(), probe_images=(20, 10, None))
  sizes = [len(part.rows) for part in context.first_labels.parts]
  assert sizes == [20, 10, len(context.scored)]
  whole = dataclasses.replace(context, probe_images=(None,) * 3)
  assert len(whole.first_labels.parts[0].rows) > 20
