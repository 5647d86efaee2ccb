"""Errors of classification in one-shot runs, for evaluation.json.

Every test image of a run is assigned to the training image that it resembles
most, by the cosine of the codes' means, or by its predictive density under the
posterior of each training image. Two controls learn nothing: the cosine of
pixels, and the modified Hausdorff distance between strokes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets.like_source import prepare_like
from experiments.datasets.sources.one_shot_runs import OneShotRun
from experiments.datasets.splits import Splits
from experiments.evaluation.context import Context, OneShotRuns
from experiments.evaluation.encoding import encode_rows, is_pixels, vectors
from experiments.evaluation.formatting import standard_error
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures.hausdorff import ink_points, modified_hausdorff
from mlvae_jax.measures.membership import membership_scores
from mlvae_jax.measures.sorted_rows import unit_rows

_CONTROL = 'modified Hausdorff distance'


def prepare(runs: tuple[OneShotRun, ...], config: Config, data: Splits
            ) -> OneShotRuns:
  """Prepares the images of runs as those of a data set.

  Args:
    runs: one-shot runs.
    config: configuration of the run that is evaluated.
    data: its data set.

  Returns:
    The runs with their images prepared.

  Raises:
    UserError: when the data set is not one of images, or its files cannot be
      read as they were.
  """
  if not is_pixels(data.train.x):
    raise UserError(
        '--one_shot_runs are images, but this run was trained on other '
        'observations; leave out this flag')
  return OneShotRuns(runs, *prepare_like(
      [image for run in runs for image in (*run.test, *run.training)],
      config, data.train))


def one_shot_rows(context: Context) -> dict[str, list[dict[str, Any]]]:
  """The section "one_shot_runs".

  Args:
    context: context of the evaluation.

  Returns:
    For each code and score a row of "error", the fraction of wrong test images,
    averaged over runs; its "standard_error" over runs and the "margin" of its
    95 % confidence interval, None for a single run; "runs", "ways" and
    "chance". {} without runs.
  """
  if context.one_shot_runs is None:
    return {}
  runs = context.one_shot_runs
  return {'one_shot_runs': [
      {'code': code, 'score': score, **_errors(found, runs.runs)}
      for code, score, found in _similarities(context, runs)]}


def _similarities(context: Context, runs: OneShotRuns
                  ) -> Iterator[tuple[str, str, list[np.ndarray]]]:
  """Code, score, and similarities `[T, C]` of the images of each run."""
  parts = _parts(runs.runs)
  for name in ('trained', 'vae'):
    if name not in context.models:
      continue
    model, params = context.models[name]
    includes_prior = model.group_posterior.includes_prior
    for factor, q in encode_rows(model, params, runs.x).items():
      code = name if name == 'vae' else factor
      # Each image is a group of its own.
      q = Normal(*map(np.asarray, model.alone(model.factor(factor), q)))
      yield code, 'cosine', [_cosine(q.mean[test], q.mean[training])
                             for test, training in parts]
      yield code, 'posterior', [
          membership_scores(*(q.take(rows) for rows in part),
                            includes_prior=includes_prior)
          for part in parts]
  flat = vectors(runs.x)
  flat = flat - flat.mean(axis=0)
  yield 'pixels', 'cosine', [_cosine(flat[test], flat[training])
                             for test, training in parts]
  yield 'strokes', _CONTROL, [
      -modified_hausdorff(*(
          [ink_points(image) for image in images]
          for images in (run.test, run.training))) for run in runs.runs]


def _parts(runs: tuple[OneShotRun, ...]) -> list[tuple[slice, slice]]:
  """The rows of the test and training images of each run in `OneShotRuns.x`."""
  parts, start = [], 0
  for run in runs:
    middle = start + len(run.test)
    stop = middle + len(run.training)
    parts.append((slice(start, middle), slice(middle, stop)))
    start = stop
  return parts


def _cosine(test: np.ndarray, training: np.ndarray) -> np.ndarray:
  return unit_rows(test) @ unit_rows(training).T


def _errors(similarities: list[np.ndarray], runs: tuple[OneShotRun, ...]
            ) -> dict[str, Any]:
  """The numbers of a row."""
  errors = [np.mean(np.argmax(found, axis=1) != run.answers)
            for found, run in zip(similarities, runs)]
  spread = standard_error(errors)
  ways = len(runs[0].training)
  return {
      'error': float(np.mean(errors)), 'standard_error': spread,
      'margin': None if spread is None else 1.96 * spread,
      'runs': len(runs), 'ways': ways, 'chance': 1 - 1 / ways}
