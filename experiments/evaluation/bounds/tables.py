"""The table of the bounds on the log likelihood of groups."""

from __future__ import annotations

from typing import Any

from experiments.evaluation import web
from experiments.evaluation.formatting import number, with_error
from experiments.evaluation.section import Evaluation, Results
from experiments.evaluation.wording import worded
from mlvae_jax.objective.bounds import why_no_bound

_HEADING = '<h2>Likelihood of groups</h2>'
_TEXT = (
    '<p>A lower bound on the log likelihood of {groups:,} random {what}, in '
    'total {images:,} images of the {split} split; in nats, with its standard '
    'error over these groups. K samples of the codes that a group shares, and '
    'for each of them L samples of the other codes of each image, are averaged '
    'inside the logarithm (importance weighting): the bound rises with K and '
    'L towards the log likelihood. With K = L = 1 it is an estimate of the '
    'ELBO{mixture}. {size}</p>')
_SIZE = (
    'These groups have up to {size} images, but those in the table of the ELBO '
    'are as large as in training: the more images share a code, the less of '
    'its KL each of them pays.')
_MIXTURE = (
    ' of a Normal with the mean and variance of this model\'s group posterior')


def report(results: Results) -> str:
  """A table of the bounds by number of samples, or why there is none."""
  rows = results.evaluation.get('bounds')
  if not rows:
    reason = '' if rows is None else why_no_bound(results.model)
    return reason and (f'{_HEADING}<p>There is no bound for this model: '
                       f'{web.escape(reason)}.</p>')
  model, first = results.model, rows[0]
  what = 'groups' if model.grouped else 'images, each a group of its own'
  text = worded(model, _TEXT.format(
      **{name: first[name] for name in ('groups', 'images', 'split')},
      what=what, size=_SIZE.format(size=first['set_size']) if model.grouped
      else '', mixture='' if model.group_posterior.is_normal else _MIXTURE))
  return _HEADING + text + web.table(
      ['K', 'L', worded(model, 'bound per image'), 'bound per group'],
      [[str(row['num_outer']), str(row['num_inner']),
        _with_error(row, 'bound_per_image'), _with_error(row, 'bound')]
       for row in rows])


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """A line with the tightest bound per image; none without numbers."""
  del width  # There are no names of codes here.
  rows = evaluation.get('bounds')
  if not rows:
    return []
  # The model is not at hand: evaluations of other rows than images say so.
  unit = evaluation.get('protocol', {}).get('observations', 'image')
  return [f'log p per {unit} in sets of {rows[0]["set_size"]}: at least '
          f'{_with_error(rows[-1], "bound_per_image", 1)} '
          f'(one sample: {number(rows[0]["bound_per_image"], 1)})']


def _with_error(row: dict[str, Any], key: str, digits: int = 2) -> str:
  """A number with its standard error."""
  return with_error(row[key], row[f'{key}_error'], digits)
