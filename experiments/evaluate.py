"""Measures how content and style separate: probes, controls, ELBO.

  python -m experiments.evaluate --workdir=runs/mnist5k-mlvae

For each number k of --ks, a classifier (a probe, by default the paper's)
predicts the label from each factor's code, once from posterior means and once
from samples. Grouped factors accumulate the evidence of k images of a label;
the code of an ungrouped factor belongs to a single image, whatever k is. The
results are listed with controls: an untrained encoder, raw pixels, the
ungrouped codes accumulated as if they were grouped, and the codes of a VAE
(--vae_workdir) accumulated in the same way. If the data have several
groupings, every label is predicted from every code, and MIG and DCI are
measured. If the test groups were never seen in training, verification and
few-shot recognition are measured as well, and with --one_shot_runs
classification in Lake's one-shot runs of Omniglot. Writes evaluation.json, and
with --projector the codes for TensorBoard.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from absl import flags
import jax

from experiments import cli, report
from experiments.cli import UserError
from experiments.config import options
from experiments.config.flags import Path, Setting, define
from experiments.datasets.sources.one_shot_runs import read_runs
from experiments.datasets.splits import Splits
from experiments.evaluation import meaning, projector
from experiments.evaluation.context import (
    Context,
    Models,
    OneShotRuns,
    ProbeSettings,
)
from experiments.evaluation.one_shot.rows import prepare
from experiments.evaluation.registry import SECTIONS
from experiments.evaluation.results import evaluation_file
from experiments.evaluation.sameness import Spread, same_codes
from experiments.evaluation.wording import shows_images
from experiments.runs.budget import budget_of
from experiments.runs.reading import (
    check_vae,
    load_data,
    load_model,
    parse_step,
    read_run,
)
from experiments.runs.workdir import require_workdir
from mlvae_jax.files import write_atomically
from mlvae_jax.training import loading

_SEED = 0  # Not the run's: evaluations of different runs can be compared.

_FLAGS = {
    'ks': Setting(
        'Numbers of images of evidence per group, separated by commas; by '
        'default 1 to 10, or 1, 2 and 5 for --model=svi.', 'Evaluation',
        tuple),
    'probe_steps': Setting(
        'Number of optimisation steps of each probe.', 'Evaluation', int, 1000,
        lower=1),
    'probe_hidden_sizes': Setting(
        'Numbers of units of the hidden layers of each probe, separated by '
        'commas: 256,256 is the paper\'s classifier; with none it is linear.',
        'Evaluation', tuple, '256,256'),
    'split': Setting(
        'Split to score on. validation is for tuning: probes are selected on '
        'one half of its images and scored on the other half, and the result '
        'is written to evaluation_validation.json.', 'Evaluation',
        default='test', choices=('test', 'validation')),
    'one_shot_runs': Setting(
        'Folder or zip of one-shot runs in the form of Omniglot\'s: run01, '
        'run02, ... with class_labels.txt, test/ and training/ in each. Their '
        'images are prepared like those of the data set, and classified.',
        'Evaluation', Path),
    'projector': Setting(
        'Whether to write the codes of up to 5,000 rows of the split for '
        'TensorBoard\'s projector as well.', 'Evaluation', bool, False),
}


def main() -> None:
  """Reads the flags and evaluates a run."""
  values = flags.FLAGS.flag_values_dict()
  workdir = require_workdir(values['workdir'])
  with cli.checked_flags():
    values = checked_values(values)
  data = load_data(
      workdir, data_changed=values['data_changed'],
      data_dir=values['data_dir'], store_dir=values['store_dir'])
  print(report.summary(evaluate(
      workdir, data, vae_workdir=values['vae_workdir'], ks=values['ks'],
      probe_steps=values['probe_steps'],
      probe_hidden_sizes=values['probe_hidden_sizes'],
      split=values['split'], step=values['step'],
      projects=values['projector'], one_shot_runs=_one_shot_runs(
          values, workdir, data))))


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of this entry point in a registry."""
  options.define('workdir', 'data_dir', 'store_dir', 'step', 'data_changed',
                 'vae_workdir', flag_values=flag_values)
  for name, option in _FLAGS.items():
    define(name, option, flag_values)


def checked_values(values: dict[str, Any]) -> dict[str, Any]:
  """Parses the values of --ks, --probe_hidden_sizes and --step.

  Args:
    values: values of the flags by name.

  Returns:
    All values, with the numbers of --ks sorted; None stays None.

  Raises:
    ValueError: when one of them is not of its form.
  """
  parsed = values | {
      'step': parse_step(values['step']),
      'probe_hidden_sizes': _positive(
          'probe_hidden_sizes', values['probe_hidden_sizes'])}
  if values['ks'] is not None:
    parsed['ks'] = tuple(sorted(set(_positive('ks', values['ks']))))
    if not parsed['ks']:
      raise ValueError('expected at least one number in --ks')
  return parsed


def _positive(name: str, values: list[str]) -> tuple[int, ...]:
  if not all(v.isdigit() and int(v) > 0 for v in values):
    raise ValueError(f'expected --{name} as comma-separated integers >= 1, '
                     'got ' + ','.join(values))
  return tuple(map(int, values))


def _one_shot_runs(values: dict[str, Any], workdir: str, data: Splits
                   ) -> OneShotRuns | None:
  """The runs of --one_shot_runs; None without it."""
  if not values['one_shot_runs']:
    return None
  moved = {name: values[name] for name in ('data_dir', 'store_dir')
           if values[name]}
  return prepare(
      read_runs(values['one_shot_runs']),
      dataclasses.replace(read_run(workdir)[0], **moved), data)


def evaluate(
    workdir: str,
    data: Splits,
    *,
    vae_workdir: str | None = None,
    ks: tuple[int, ...] | None = None,
    probe_steps: int = 1000,
    probe_hidden_sizes: tuple[int, ...] = (256, 256),
    split: str = 'test',
    step: int | str = 'latest',
    projects: bool = False,
    one_shot_runs: OneShotRuns | None = None,
) -> dict[str, Any]:
  """Evaluates a run and writes its evaluation.json.

  Args:
    workdir: folder of the run.
    data: the run's data set.
    vae_workdir: folder of a run of a VAE on the same data, or None.
    ks: numbers of images of evidence per group; None for 1 to 10, or for 1, 2
      and 5 with an SVI model.
    probe_steps: number of optimisation steps of each probe.
    probe_hidden_sizes: numbers of units of the hidden layers of each probe.
    split: split to score on: 'test'; or 'validation', where probes are
      selected on one half and scored on the other.
    step: step of the checkpoint, as `mlvae_jax.load` takes it.
    projects: whether to write codes for the projector of TensorBoard.
    one_shot_runs: one-shot runs to classify, or None.

  Returns:
    The content of evaluation.json, or of evaluation_validation.json.
  """
  config, _ = read_run(workdir)
  models = _load_models(workdir, vae_workdir, step)
  budget = budget_of(models['trained'][0])
  context = Context(
      models, data, config, split, budget.ks if ks is None else ks,
      ProbeSettings(probe_steps, probe_hidden_sizes),
      probe_images=budget.probe_images, elbo_images=budget.elbo_images,
      one_shot_runs=one_shot_runs)
  result = {
      'warnings': meaning.find_warnings(
          config, models['trained'][0], data, split)}
  if one_shot_runs is not None and one_shot_runs.warning:
    result['warnings'].append(one_shot_runs.warning)
  result['warnings'] += _of_codes(context)
  for section in SECTIONS:
    result |= section.rows(context)
  result['protocol'] = {
      'step': loading.find_step(workdir, step),
      'probe_hidden_sizes': list(probe_hidden_sizes),
      'probe_steps': probe_steps, 'seed': _SEED,
      'examples': [len(part.rows) for part in context.first_labels.parts],
      'vae_workdir': vae_workdir,
      'unseen_groups': not data.shares_groups, 'split': split,
      'split_by': config.split_by,
  }
  if not shows_images(models['trained'][0]):
    result['protocol']['observations'] = 'row'
  _write(os.path.join(workdir, evaluation_file(split)), result)
  if projects and (path := projector.write(workdir, context)):
    print(f'projector: {path}; tensorboard --logdir={workdir} shows it')
  return result


def _of_codes(context: Context) -> list[str]:
  """Warnings about the codes of the scored images."""
  model, scored = context.models['trained'][0], context.first_labels.parts[-1]
  if not model.has_encoder or not len(scored.rows):
    return []
  codes = context.codes([context.first_labels])['trained']
  spreads = {f.name: Spread() for f in model.factors}
  for name, q in codes.messages(scored.split, scored.rows).items():
    spreads[name].add(q)
  return same_codes(model, spreads)


def _write(path: str, result: dict[str, Any]) -> None:
  """Writes an evaluation; prints it when it cannot be written."""
  try:
    write_atomically(path, json.dumps(result, indent=1) + '\n')
  except OSError as error:
    # It took minutes to compute: do not lose the numbers.
    print(report.summary(result))
    raise UserError(
        f'cannot write {path}: {error.strerror}; free space or check its '
        'permissions, then run experiments.evaluate again') from error


def _load_models(workdir: str, vae_workdir: str | None, step: int | str
                 ) -> Models:
  """The trained model, the same model untrained, and the VAE if given."""
  model, params = load_model(workdir, step)
  models = {'trained': (model, params)}
  if budget_of(model).has_untrained:
    models['untrained'] = (
        model, jax.jit(model.init)(jax.random.key(_SEED)))
  if vae_workdir:
    check_vae(vae_workdir, model.observation_shape)
    models['vae'] = load_model(vae_workdir)
  return models


if __name__ == '__main__':
  define_flags()
  cli.run(main)
