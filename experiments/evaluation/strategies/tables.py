"""The table that compares the two strategies of encoding."""

from __future__ import annotations

from experiments.evaluation import web
from experiments.evaluation.formatting import number
from experiments.evaluation.section import Results
from experiments.evaluation.wording import shows_images, worded
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.model import Model

_STRATEGIES = {1: '1: each image alone', 2: '2: evidence of its group'}
_TEXT = (
    '<p>Strategy 1 encodes test images without their groups: each image is a '
    'group of its own. Strategy 2 takes several images of a group, here up to '
    '{size}, and accumulates their evidence into the codes that they share, '
    'whose KL counts once for all of them. The numbers are from {images:,} '
    'test images, in nats per image; the log likelihood of means is that of '
    'images decoded from posterior means, not from samples; the squared error '
    'is per pixel{scale}.</p>')


def report(results: Results) -> str:
  """A table of the ELBO and its terms per strategy; '' without numbers."""
  rows = results.evaluation.get('strategies')
  if not rows:
    return ''
  model, factors = results.model, list(rows[0]['kl'])
  cells = [
      [worded(model, _STRATEGIES.get(
          row['strategy'], str(row['strategy']))),
       number(row['elbo_per_image'], 2), number(row['log_lik'], 2),
       *(number(row['kl'].get(name), 2) for name in factors),
       number(row['log_lik_of_means'], 2), number(row['squared_error'], 5)]
      for row in rows]
  text = worded(model, _TEXT.format(
      size=max(row['set_size'] for row in rows), images=rows[0]['images'],
      scale=_scale(model)))
  return '<h2>Two strategies of encoding</h2>' + text + web.table(
      ['strategy', 'ELBO', 'log likelihood', *(f'KL of {n}' for n in factors),
       'log likelihood of means', 'squared error'], cells)


def _scale(model: Model) -> str:
  """What a squared error is computed from, as the end of a sentence."""
  if shows_images(model):
    return ', for pixels from 0 to 1'
  if isinstance(model.likelihood, Categorical):
    return ' and category, computed from probabilities'
  return ', on the scale of the likelihood\'s mean'
