"""Tables of the ELBO and its terms."""

from __future__ import annotations

from experiments.evaluation import web
from experiments.evaluation.formatting import number
from experiments.evaluation.section import Evaluation, Pairs, Results
from experiments.evaluation.wording import worded


def key_numbers(results: Results) -> Pairs:
  """The ELBO of the test images; none after tuning on validation images."""
  if 'test' not in results.evaluation.get('elbo', {}):
    return []
  value = results.evaluation['elbo']['test']['elbo_per_image']
  return [(worded(results.model, 'test ELBO per image'), number(value, 1))]


def report(results: Results) -> str:
  """A table of the ELBO and its terms per split; '' without numbers."""
  elbos = results.evaluation.get('elbo')
  if not elbos:
    return ''
  names = list(next(iter(elbos.values()))['kl'])
  rows = [
      [split, *(number(v, 2) for v in (
          e['elbo_per_image'], e['elbo'], e['log_lik'],
          *(e['kl'][name] for name in names)))] for split, e in elbos.items()]
  return (
      '<h2>ELBO</h2><p>All numbers are in nats. The last columns are terms of '
      'the ELBO per group, which is the log likelihood minus the KL '
      'divergences.</p>'
      + web.table(
          ['split', worded(results.model, 'ELBO per image'),
           'ELBO per group', 'log likelihood',
           *(f'KL of {name}' for name in names)], rows))


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """A line with the ELBO per image of each split; none without numbers."""
  del width  # There are no names of codes here.
  elbos = [f'{split} {value["elbo_per_image"]:.1f}'
           for split, value in evaluation.get('elbo', {}).items()]
  # The model is not at hand: evaluations of other rows than images say so.
  unit = evaluation.get('protocol', {}).get('observations', 'image')
  return [f'ELBO per {unit}: {", ".join(elbos)}'] if elbos else []
