"""Exports a trained run as functions that need nothing but JAX.

  python -m experiments.export --workdir=runs/mnist5k-mlvae --output=exported

Writes artefacts of jax.export, for CPU, CUDA and TPU and for any number of
rows n >= 1, and description.json, which says what each takes and returns:

  encode.jax                  rows -> mean and variance of every factor, each
                              row alone
  encode_groups_FACTOR.jax    rows, and the group of each in [0, n) -> mean and
                              variance of this factor for the groups 0 to n - 1;
                              rows with other numbers are left out, so -1
                              marks padding
  decode.jax                  codes of every factor -> expected observations

A program that imports only jax (with flatbuffers installed) and numpy can run
them:

  encode = jax.export.deserialize(open('exported/encode.jax', 'rb').read())
  codes = encode.call(images)

If the run standardised its data, the artefacts do so too: they take and return
rows on the scale of the user's data.

--onnx also writes encode.onnx and decode.onnx, for programs without JAX. The
encoder takes x and returns FACTOR.mean and FACTOR.variance of every factor; the
decoder takes the codes under the factors' names and returns x.mean. There is
none for groups: description.json has the formula by which the codes of rows are
combined, if the group posterior is a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import util
import inspect
import json
import logging
import os
import shutil
import tempfile
from typing import Any

from absl import flags
import jax
from jax import export
import numpy as np

from experiments import cli
from experiments.cli import UserError
from experiments.config import options
from experiments.config.flags import Path, Setting, define
from experiments.config.settings import Config
from experiments.datasets import folder
from experiments.datasets.splits import Scale
from experiments.evaluation.versions import versions
from experiments.evaluation.wording import shows_images
from experiments.runs.reading import load_model, parse_step, read_run
from experiments.runs.workdir import SCALE_FILE, read_scale
import mlvae_jax
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import PriorProduct, Product
from mlvae_jax.model import convolution
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import loading

PLATFORMS = ('cpu', 'cuda', 'tpu')
DESCRIPTION = 'description.json'
_MADE_SQUARE = {'squeeze': 'the whole image', 'crop': 'its central square',
                'pad': 'the whole image in a black square'}
_SUBJECT = 'Export'
_FLAGS = {
    'output': Setting(
        'Folder to write, which must be empty or not exist yet.', _SUBJECT,
        Path),
    'input_dtype': Setting(
        'Type of the rows that the encoder takes: by default uint8 (pixels '
        'from 0 to 255) for images, int32 for tokens, otherwise float32.',
        _SUBJECT, choices=('uint8', 'int32', 'float32')),
    'onnx': Setting(
        'Whether to write the encoder of rows and the decoder as ONNX too.',
        _SUBJECT, bool, False),
}

# What is written as ONNX: functions of one argument.
_ONNX = ('encode', 'decode')

# A function of rows, and what stands for its arguments.
_Exported = tuple[str, Callable[..., Any], tuple[Any, ...]]


def main() -> None:
  """Reads the flags and exports a run."""
  values = flags.FLAGS.flag_values_dict()
  for name in ('workdir', 'output'):
    if not values[name]:
      cli.bad_flag(f'--{name} is required')
  with cli.checked_flags():
    step = parse_step(values['step'])
  for path in export_run(values['workdir'], values['output'], step,
                         values['input_dtype'], values['onnx']):
    print(f'{path}: {os.path.getsize(path):,} bytes')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  options.define('workdir', 'step')
  for name, option in _FLAGS.items():
    define(name, option)


def export_run(workdir: str, output: str, step: int | str = 'latest',
               input_dtype: str | None = None, onnx: bool = False
               ) -> list[str]:
  """Writes the artefacts of a run and their description.

  Args:
    workdir: folder of the run.
    output: folder to write, completely or not at all.
    step: step of the checkpoint, as `mlvae_jax.load` takes it.
    input_dtype: type of the encoder's rows; None for that of `_FLAGS`.
    onnx: whether to write ONNX too.

  Returns:
    The paths of the files.

  Raises:
    UserError: when there is no such run, the output exists and is not an empty
      folder, or flatbuffers or jax2onnx is missing.
  """
  if util.find_spec('flatbuffers') is None:
    raise UserError('experiments.export needs flatbuffers: pip install '
                    'flatbuffers')
  if onnx and util.find_spec('jax2onnx') is None:
    raise UserError("--onnx needs jax2onnx: pip install 'mlvae_jax[onnx]'")
  output = os.path.abspath(output)
  if os.path.lexists(output) and (
      os.path.islink(output) or not os.path.isdir(output)
      or os.listdir(output)):
    raise UserError(
        f'{output} exists already and is not an empty folder; delete it, or '
        'choose another --output')
  config, _ = read_run(workdir)
  model, params = load_model(workdir, step)
  scale = read_scale(workdir)
  if config.standardise and scale is None:
    raise UserError(
        f'{workdir} has no {SCALE_FILE}, with which its data were '
        'standardised; copy the whole folder, or run the same '
        'experiments.train command again')
  dtype = input_dtype or _default_dtype(model, scale)
  about = {
      'workdir': os.path.abspath(workdir), 'versions': versions(),
      'step': loading.find_step(workdir, step), 'model': model.to_dict(),
      'format': 'jax.export', 'platforms': PLATFORMS, 'rows': _rows(
          config, model, scale, dtype), 'functions': {}}
  os.makedirs(os.path.dirname(output), exist_ok=True)
  # Beside the output, so that it can be renamed.
  partial = tempfile.mkdtemp(
      prefix=f'{os.path.basename(output)}.', dir=os.path.dirname(output))
  try:
    for name, function, arguments in _functions(model, params, scale, dtype):
      found = _export(name, function, arguments)
      with open(os.path.join(partial, f'{name}.jax'), 'wb') as file:
        file.write(found.serialize())
      about['functions'][name] = {
          'file': f'{name}.jax', 'inputs': dict(zip(
              inspect.signature(function).parameters,
              _described(found.in_tree, found.in_avals)[0])),
          'outputs': _described(found.out_tree, found.out_avals)}
      if onnx and name in _ONNX:
        path = os.path.join(partial, f'{name}.onnx')
        about['functions'][name]['onnx'] = {
            'file': f'{name}.onnx',
            **_write_onnx(path, name, function, arguments, found)}
    if onnx and model.grouped:
      about['groups_in_onnx'] = _groups_in_words(model)
    with open(os.path.join(partial, DESCRIPTION), 'w') as file:
      json.dump(about, file, indent=1)
    os.chmod(partial, 0o755)  # Not for its owner alone, as mkdtemp made it.
    os.replace(partial, output)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return [os.path.join(output, name) for name in sorted(os.listdir(output))]


def _functions(model: Model, params: Params, scale: Scale | None, dtype: str
               ) -> Iterator[_Exported]:
  """The functions to export: of plain dicts, for consumers without mlvae_jax.
  """
  n, = export.symbolic_shape('n')
  x = jax.ShapeDtypeStruct((n, *model.observation_shape), np.dtype(dtype))

  def scaled(x: jax.Array) -> jax.Array:
    return x if scale is None else (x - scale.mean) / scale.std

  def encode(x: jax.Array) -> dict[str, dict[str, jax.Array]]:
    found = mlvae_jax.posteriors(model, params, scaled(x))
    return {name: _plain(q) for name, q in found.items()}

  def decode(codes: dict[str, jax.Array]) -> jax.Array:
    found = mlvae_jax.decode(model, params, codes)
    return found if scale is None else found * scale.std + scale.mean

  yield 'encode', encode, (x,)
  for factor in model.grouped:

    def encode_groups(x: jax.Array, group_ids: jax.Array, name=factor.name
                      ) -> dict[str, jax.Array]:
      # There are at most as many groups as rows.
      return _plain(mlvae_jax.encode_group(
          model, params, scaled(x), group_ids, x.shape[0], factor=name))

    yield f'encode_groups_{factor.name}', encode_groups, (
        x, jax.ShapeDtypeStruct((n,), np.int32))
  yield 'decode', decode, ({
      f.name: jax.ShapeDtypeStruct((n, f.dim), np.float32)
      for f in model.factors},)


def _export(name: str, function: Callable[..., Any],
            arguments: tuple[Any, ...]) -> export.Exported:
  try:
    return export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
  except ValueError as error:
    raise UserError(f'cannot export {name}: {error}') from error
  except Exception as error:  # Networks of the user's own may do anything.
    raise UserError(
        f'cannot export {name}: {error}; a network must work for any '
        'number of rows and on every platform, see jax.export') from error


def _write_onnx(path: str, name: str, function: Callable[..., Any],
                arguments: tuple[Any, ...], found: export.Exported
                ) -> dict[str, Any]:
  """Writes a function of one argument as ONNX; its inputs and outputs."""
  from jax2onnx import to_onnx  # Optional, and slow to import.
  # It would warn of values that have a shape but no type.
  logging.getLogger('onnx_ir.serde').setLevel(logging.ERROR)
  leaves, tree = jax.tree.flatten(arguments)
  inputs = _named(arguments[0], 'x', found.in_avals)
  outputs = _named(jax.tree.unflatten(found.out_tree, found.out_avals),
                   'x.mean', found.out_avals)
  try:
    with convolution.portable(True):
      model = to_onnx(
          lambda *leaves: function(*jax.tree.unflatten(tree, leaves)), leaves,
          model_name=name, input_names=list(inputs), output_names=list(outputs))
    with open(path, 'wb') as file:
      file.write(model.SerializeToString())
  except Exception as error:  # Networks of the user's own may do anything.
    reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
        f'cannot convert {name} to ONNX: {reason}; jax2onnx must support '
        'every operation of the network: leave out --onnx, or change the '
        'network') from error
  return {'inputs': inputs, 'outputs': outputs}


def _named(tree: Any, name: str, avals: Iterable[Any]) -> dict[str, Any]:
  """Shapes and types by dotted path, or by name if there is but an array."""
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  return {'.'.join(key.key for key in path) or name: _shape_and_type(aval)
          for path, aval in zip(paths, avals, strict=True)}


def _groups_in_words(model: Model) -> str:
  """How a caller of encode.onnx combines the rows of a group."""
  kind = type(model.group_posterior)
  if kind not in (Product, PriorProduct):
    return (f'the rows of a group are combined by {kind.__name__}; use '
            'encode_groups_FACTOR.jax, because there is no formula for it here')
  precision = ('the sum of 1 / variance' if kind is Product
               else '1 + the sum of (1 / variance - 1)')
  return (f'over the rows of a group, precisions add: 1 / V = {precision}, and '
          'M = V * the sum of mean / variance; V is the group\'s variance, M '
          'its mean')


def _plain(q: Normal) -> dict[str, jax.Array]:
  """A Normal as a dict, which every process can deserialise."""
  return {'mean': q.mean, 'variance': jax.numpy.exp(q.logvar)}


def _described(tree: Any, avals: list[Any]) -> Any:
  """Shapes and types of inputs or outputs, in their structure."""
  return jax.tree.unflatten(tree, map(_shape_and_type, avals))


def _shape_and_type(aval: Any) -> dict[str, Any]:
  return {'shape': [d if isinstance(d, int) else str(d) for d in aval.shape],
          'dtype': aval.dtype.name}


def _default_dtype(model: Model, scale: Scale | None) -> str:
  if scale is None and shows_images(model):
    return 'uint8'
  return 'int32' if model.likelihood.has_tokens else 'float32'


def _rows(config: Config, model: Model, scale: Scale | None, dtype: str
          ) -> str:
  """What the numbers of a row mean, in words."""
  if scale is not None:
    return 'numbers on the scale of the training data, not standardised'
  if dtype == 'uint8' and model.likelihood.takes_pixels:
    made, size = '', config.image_size
    if config.dataset in folder.GROUPINGS:
      colour = 'grey' if model.observation_shape[-1] == 1 else 'RGB'
      made = (f'{_MADE_SQUARE[config.resize]}, upright as its EXIF data say, '
              f'{colour}, {_black_and_white(config)}resized to {size}x{size} '
              'by Pillow\'s LANCZOS: ')
    return f'{made}pixels from 0 to 255; decode returns them divided by 255'
  return (f'values as the likelihood {type(model.likelihood).__name__} takes '
          'them' + ('; pixels from 0 to 1' if model.likelihood.takes_pixels
                    else ''))


def _black_and_white(config: Config) -> str:
  """How files with more than 8 bits were made images, if the user said so."""
  if config.black is None and config.white is None:
    return ''
  black = 0.0 if config.black is None else config.black
  white = ('white 1 (float) or 65,535 (integers)' if config.white is None
           else f'white {config.white:.15g}')
  return f'in files of more than 8 bits black {black:.15g} and {white}, '


if __name__ == '__main__':
  define_flags()
  cli.run(main)
