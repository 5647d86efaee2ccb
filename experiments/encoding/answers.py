"""The groups of a gallery that the images of a query belong to, in words."""

from __future__ import annotations

import os

import numpy as np

from experiments.cli import UserError
from experiments.encoding import files, merging, query, rows, shards
from experiments.encoding.data_set import check_model
from experiments.encoding.gallery import (
    Calibration,
    calibrate,
    make_gallery,
    nearest,
    read_images,
)
from experiments.evaluation.encoding import encode_rows
from experiments.runs.reading import load_model, read_run
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model


def find_nearest(workdir: str, query_path: str, gallery: str, k: int,
                 output: str | None, *, step: int | str = 'latest'
                 ) -> list[str]:
  """Prints the groups that images most probably belong to.

  Args:
    workdir: folder of the run.
    query_path: path of an image or of a folder of images.
    gallery: folder of codes of the same run.
    k: number of groups per image.
    output: path of a PNG to draw; with several grouped factors, their names are
      added. None draws nothing.
    step: step of the checkpoint, as `mlvae_jax.load` takes it.

  Returns:
    The paths of the figures.

  Raises:
    UserError: when the run, the gallery or all images cannot be used.
  """
  config, values = read_run(workdir)
  check_model(config, Model.from_dict(values['model']))
  about = merging.read_about(gallery)
  model, params = load_model(workdir, step)
  paths = _figures(output, model)
  if about['model'] != rows.digest_of(model, params):
    raise UserError(
        f'{gallery} was not encoded with the model that {workdir} has at this '
        f'step, but with step {about["step"]} of {about["workdir"]}; give that '
        '--workdir and --step, or encode the gallery again')
  if not model.grouped:
    raise UserError('this run has no grouped factor, so there are no groups; '
                    'train with --model=mlvae')
  asked = query.read_query(query_path, config, model)
  for problem in asked.problems:
    print(f'warning: {problem}')
  codes = {name: model.alone(model.factor(name), q) for name, q in encode_rows(
      model, params, asked.x).items()}
  known, _ = files.read_evidence(os.path.join(gallery, files.EVIDENCE_FILE))
  for factor in model.grouped:
    groups = make_gallery(model.group_posterior, known[factor.name])
    if not groups.evidence.names:
      raise UserError(f'{gallery} has no groups; encode images with labels')
    names = groups.evidence.names
    calibration = calibrate(groups, *read_images(
        os.path.join(gallery, f'images.{about["format"]}'), factor.name,
        files.group_column(factor.grouping, codes), names))
    found = nearest(
        Normal(*map(np.asarray, codes[factor.name])), groups, k,
        calibration.temperature)
    print(_calibrated(factor, len(names), calibration))
    for line in query.lines(asked, factor.name, names, found):
      print(line)
    if output:
      query.draw(model, params, asked, codes, factor.name, groups.q, names,
                 found, paths[factor.name])
  return list(paths.values())


def _figures(output: str | None, model: Model) -> dict[str, str]:
  """The path of the figure of each grouped factor."""
  if not output:
    return {}
  stem, ending = os.path.splitext(output)
  if ending.lower() != '.png':
    raise UserError(
        f'the figure {output} must end in .png; choose another --output')
  paths = {f.name: output if len(model.grouped) == 1
           else f'{stem}_{f.name}{ending}' for f in model.grouped}
  for path in paths.values():
    if os.path.lexists(path):
      raise UserError(
          f'{path} exists already; delete it, or choose another --output')
  shards.make_parent(output)
  return paths


def _calibrated(factor: Factor, num_groups: int, found: Calibration) -> str:
  """A line on how probabilities of a factor were calibrated."""
  if not found.num_images:
    return (f'{factor.name}: {num_groups:,} groups; probabilities are not '
            'calibrated: too few images in groups of two or more')
  return (f'{factor.name}: {num_groups:,} groups; probabilities calibrated on '
          f'{found.num_images:,} images of the gallery, each compared with its '
          f'group without itself ({100 * found.accuracy:.1f} % assigned '
          f'correctly, temperature {found.temperature:.2g})')
