"""Draws the pictures of a trained run into WORKDIR/figures.

  python -m experiments.figures --workdir=runs/mnist5k-mlvae
  python -m experiments.figures --workdir=... --only=swap,interpolation

Drawn from test images: swap (paper fig. 4), generation (5a), interpolation
(5b), reconstruction (6a, 6b), generalisation (1) and ambiguity; for a VAE,
samples replace the first two. For observations other than images: profiles, or
for tokens sentences, and a map of codes. Drawn from the run's files, if they
exist: evidence (6c), factors, recognition and uncertainty (all from
evaluation.json) and curves (from metrics.jsonl). Explorer writes
explorer.json, from which the report makes its explorer of codes.

swap.png shows the first grouped factor, swap_light.png another one called
light. These accumulate the evidence of groups, the paper's strategy 2; in
swap_strategy_1.png every image is encoded alone. Each PNG holds its caption in
the text chunk "Description".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import os

from absl import flags
import matplotlib

from experiments import cli
from experiments.cli import UserError
from experiments.config import options
from experiments.config.flags import Setting, define
from experiments.datasets.splits import Splits
from experiments.evaluation import curves
from experiments.evaluation.registry import CHARTS, draw_chart
from experiments.evaluation.results import as_written, read_evaluation
from experiments.explorer import block as explorer
from experiments.pictures.registry import PICTURES, draw_pictures
from experiments.pictures.sheets import STYLE, Drawing, save
from experiments.pictures.subject import Subject
from experiments.runs.reading import load_data, load_model, parse_step
from experiments.runs.workdir import require_workdir
from mlvae_jax.model.model import Model
from mlvae_jax.training.history import read_metrics

# The only chart made of the run's log; the others are made of its evaluation.
_CURVES = 'curves'
_EXPLORER = 'explorer'  # Not a picture: the data of the report's explorer.
NAMES = (*PICTURES, *CHARTS, _CURVES, _EXPLORER)


def main() -> None:
  """Reads the flags and draws a run."""
  values = flags.FLAGS.flag_values_dict()
  workdir = require_workdir(values['workdir'])
  only = values['only']
  if only is not None and not (only and set(only) <= set(NAMES)):
    wrong = ', '.join(repr(n) for n in only if n not in NAMES) or 'nothing'
    cli.bad_flag(f'--only: expected some of {", ".join(NAMES)}; got {wrong}')
  with cli.checked_flags():
    step = parse_step(values['step'])
  paths = draw_all(workdir, load_data(
      workdir, data_changed=values['data_changed'],
      data_dir=values['data_dir'], store_dir=values['store_dir']),
      only=only, step=step)
  if only and not paths:
    raise UserError(
        f'cannot draw {", ".join(only)}: the model, the data or the files of '
        f'{workdir} do not allow it; leave out --only to draw whatever they '
        'allow')
  for path in paths:
    print(path)


def define_flags() -> None:
  """Defines the flags of this entry point."""
  options.define('workdir', 'data_dir', 'store_dir', 'step', 'data_changed')
  define('only', Setting(
      f'Figures to draw, separated by commas: {", ".join(NAMES)}. All by '
      'default.', 'Figures', tuple))


def draw_all(workdir: str, data: Splits, only: Sequence[str] | None = None,
             step: int | str = 'latest') -> list[str]:
  """Draws every figure that the model and the files of a run allow.

  Args:
    workdir: folder of the run.
    data: the run's data set.
    only: names of the figures to draw, from `NAMES`; None draws all.
    step: step of the checkpoint, as `mlvae_jax.load` takes it.

  Returns:
    The paths of the figures.

  Raises:
    UserError: when the images or their groupings do not fit the model.
    ValueError: on an unknown name of a figure.
  """
  unknown = set(only or ()) - set(NAMES)
  if unknown:
    raise ValueError(f'expected names of {NAMES}, got {sorted(unknown)}')
  model, params = load_model(workdir, step)
  _check_data(workdir, model, data)
  subject = Subject(
      model, params, data, model.grouped[0].name if model.grouped else None)
  folder = os.path.join(workdir, 'figures')
  os.makedirs(folder, exist_ok=True)
  cli.check_writable(folder)
  paths = []
  # In a context: the caller's matplotlib keeps its own style.
  with matplotlib.rc_context(STYLE):
    for name, drawing in _draw(
        workdir, subject,
        [n for n in NAMES if n in (only or NAMES) and n != _EXPLORER]):
      paths.append(os.path.join(folder, f'{name}.png'))
      save(drawing, paths[-1])
  if _EXPLORER in (only or NAMES) and len(subject.images):
    found = explorer.write(subject, folder)
    paths += [found] if found else []
  return paths


def _draw(workdir: str, subject: Subject, names: Sequence[str]
          ) -> Iterator[tuple[str, Drawing]]:
  """The drawings that are possible, one at a time because they are large."""
  for name in names:
    if name in PICTURES:
      if len(subject.images):  # Few groups can leave the test split empty.
        yield from draw_pictures(name, subject)
    elif (drawing := _draw_chart(workdir, subject.model, name)) is not None:
      yield name, drawing


def _draw_chart(workdir: str, model: Model, name: str) -> Drawing | None:
  """A chart of the run's files; None if they do not have its numbers."""
  if name == _CURVES:
    return curves.draw_curves(read_metrics(workdir), model)
  evaluation = read_evaluation(workdir)
  with as_written(workdir, evaluation):
    return draw_chart(name, evaluation, model)


def _check_data(workdir: str, model: Model, data: Splits) -> None:
  """Raises a UserError when images or groupings do not fit the model."""
  shape = data.test.x.shape[1:]
  if shape != model.observation_shape:
    raise UserError(
        f'the model of {workdir} is for observations of '
        f'{model.observation_shape}, but the data are of {shape}; check '
        '--data_dir')
  missing = [g for g in model.groupings if g not in data.test.groupings]
  if missing:
    raise UserError(
        f'the model of {workdir} has groups by {", ".join(missing)}, but the '
        f'data only by {", ".join(data.test.groupings)}; check --data_dir')


if __name__ == '__main__':
  define_flags()
  cli.run(main)
