"""Trains a Multi-Level VAE, evaluates it, draws it and writes a report.

  python -m experiments.train                          # 5,000 MNIST digits
  python -m experiments.train --dataset=mnist --data_dir=~/tensorflow_datasets
  python -m experiments.train --dataset=folder --data_dir=FOLDER_OF_FOLDERS

The data set's preset gives every setting, flags override it. The same command
again resumes what the workdir holds. With 10 + 10 dimensions on the digits,
expect content to classify about 95 % of single images.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

from absl import flags
import jax
import tqdm

from experiments import cli
from experiments import datasets
from experiments import presets
from experiments.cli import UserError
from experiments.datasets.splits import Splits
from mlvae_jax import checkpoint
from mlvae_jax import training
from mlvae_jax.batching import IndexStream
from mlvae_jax.likelihoods import LIKELIHOODS
from mlvae_jax.model import Model
from mlvae_jax.networks import ACTIVATIONS
from mlvae_jax.store import GroupedImages

# Up to this many bytes of images are kept on the devices.
_MAX_DEVICE_BYTES = 2 << 30
# What may differ when a run is resumed.
_FREE_TO_CHANGE = (
    'steps', 'data_dir', 'chunk_steps', 'eval_every', 'checkpoint_every')

flags.DEFINE_enum(
    'dataset', 'mnist5k', list(presets.PRESETS), 'Data set, and its preset.')
flags.DEFINE_string('data_dir', None, 'Where the data set\'s files are.')
flags.DEFINE_string(
    'workdir', None, 'Folder of the run; runs/DATASET-MODEL by default.')
flags.DEFINE_enum('model', None, ['mlvae', 'vae'], 'Kind of model.')
flags.DEFINE_string(
    'factors', None, 'Latent factors: NAME:DIM[:GROUPING],...')
flags.DEFINE_enum('likelihood', None, list(LIKELIHOODS), 'p(x | z).')
flags.DEFINE_float(
    'sigma', None, 'Standard deviation of --likelihood=gaussian.',
    lower_bound=1e-3)
flags.DEFINE_list('hidden_sizes', None, 'Units of the encoder\'s layers.')
flags.DEFINE_enum('activation', None, list(ACTIVATIONS), 'Of hidden layers.')
flags.DEFINE_integer('steps', None, 'Optimisation steps.', lower_bound=0)
flags.DEFINE_integer(
    'epochs', None, 'Passes over the images, instead of --steps.',
    lower_bound=0)
flags.DEFINE_integer(
    'groups_per_batch', None, 'Groups a step.', lower_bound=1)
flags.DEFINE_integer(
    'max_group_size', None,
    'Larger groups are visited in pieces of at most this many images.',
    lower_bound=1)
flags.DEFINE_integer(
    'batch_size', None, 'Images a step of --model=vae.', lower_bound=1)
flags.DEFINE_float(
    'learning_rate', None, 'Of Adam.', lower_bound=1e-9)
flags.DEFINE_string(
    'kl_weights', None, 'Weights of the KL terms: FACTOR:WEIGHT,...')
flags.DEFINE_integer(
    'kl_warmup_steps', None, 'Linear warm-up of the KL terms.', lower_bound=0)
flags.DEFINE_enum(
    'sample_per', None, ['row', 'group'],
    'Draw a group\'s code once per image (algorithm 1) or per group.')
flags.DEFINE_integer('seed', None, 'Of everything random.', lower_bound=0)
flags.DEFINE_integer(
    'image_size', None, 'Pixels of a side, for data sets that resize.',
    lower_bound=4, upper_bound=1024)
flags.DEFINE_enum(
    'split_by', None, ['image', 'group'],
    'Divide the images of each group into splits, or the groups.')
flags.DEFINE_integer(
    'eval_every', None, 'Steps between validations.', lower_bound=1)
flags.DEFINE_integer(
    'checkpoint_every', None, 'Steps between checkpoints.', lower_bound=1)
flags.DEFINE_bool(
    'resume', True, 'Resume what the workdir holds; false refuses to.')
flags.DEFINE_bool('eval', True, 'Evaluate after training.')
flags.DEFINE_bool('figures', True, 'Draw figures after training.')
flags.DEFINE_string(
    'vae_workdir', None, 'Run of a VAE to compare with in the evaluation.')


def main() -> None:
  """Reads the flags and runs the whole job."""
  values = flags.FLAGS.flag_values_dict()
  config = config_from_flags(values)
  workdir = values['workdir'] or os.path.join(
      'runs', f'{config.dataset}-{config.model}')
  data = datasets.load(config)
  model = make_model(config, data)
  if values['epochs'] is not None:
    stream = make_stream(model, data.train, config)
    config = dataclasses.replace(
        config, steps=values['epochs'] * stream.steps_per_epoch)
  open_workdir(workdir, config, model, resume=values['resume'])
  train(workdir, config, model, data)
  if values["eval"] or values["figures"]: finish(workdir, data, values)


def config_from_flags(values: dict[str, Any]) -> presets.Config:
  """The preset of --dataset with the flags that were given on top.

  Exits with 2 where a flag's value makes no sense.
  """
  preset = presets.PRESETS[values['dataset']]
  names = {field.name for field in dataclasses.fields(preset)}
  given = {name: value for name, value in values.items()
           if name in names and value is not None}
  try:
    if 'hidden_sizes' in given:
      given['hidden_sizes'] = tuple(int(n) for n in given['hidden_sizes'])
    config = dataclasses.replace(preset, **given)
    model = presets.make_model(config, (1, 1, 1))
    presets.make_train_config(config, model)
  except ValueError as error:
    cli.bad_flag(str(error))
  if values['steps'] is not None and values['epochs'] is not None:
    cli.bad_flag('give --steps or --epochs, not both')
  return config


def make_model(config: presets.Config, data: Splits) -> Model:
  """The model of a configuration for a data set's images."""
  model = presets.make_model(config, data.train.images.shape[1:])
  for factor in model.grouped:
    if factor.grouping != data.grouping:
      cli.bad_flag(
          f'factor {factor.name!r} is grouped by {factor.grouping!r}, but '
          f'{config.dataset} is grouped by {data.grouping!r}; see --factors')
  return model


def make_stream(model: Model, images: GroupedImages, config: presets.Config,
                shuffle: bool = True) -> IndexStream:
  """The index stream of a split; a VAE's groups are single images."""
  row_multiple = jax.local_device_count()
  if not model.grouped:
    return IndexStream(
        range(len(images) + 1), groups_per_batch=config.batch_size,
        seed=config.seed, row_multiple=row_multiple, shuffle=shuffle)
  return IndexStream(
      images.offsets, groups_per_batch=config.groups_per_batch,
      max_group_size=config.max_group_size, seed=config.seed,
      row_multiple=row_multiple, shuffle=shuffle)


def make_feed(model: Model, images: GroupedImages, config: presets.Config,
              shuffle: bool = True) -> training.Feed:
  """The feed of a split."""
  return training.Feed(
      model, images, make_stream(model, images, config, shuffle),
      on_device=images.images.nbytes <= _MAX_DEVICE_BYTES)


def open_workdir(workdir: str, config: presets.Config, model: Model, *,
                 resume: bool) -> None:
  """Makes a workdir with its config.json, or checks the one that is there.

  Args:
    workdir: the folder.
    config: of this run.
    model: of this run.
    resume: False refuses a workdir that holds a run.

  Raises:
    UserError: when the workdir holds a run of another configuration, or one
      that is not to be resumed.
  """
  path = os.path.join(workdir, checkpoint.CONFIG_FILE)
  if os.path.exists(path):
    if not resume:
      raise UserError(
          f'{workdir} holds a run already; choose another --workdir, or '
          'resume it with --resume')
    _check_same_run(workdir, config, model)
  os.makedirs(workdir, exist_ok=True)
  cli.write_atomically(path, json.dumps(
      {'config': presets.to_json(config), 'model': model.to_dict()}, indent=2)
      + '\n')


def train(workdir: str, config: presets.Config, model: Model, data: Splits
          ) -> None:
  """Trains until `config.steps`, from the newest checkpoint if there is one.

  Args:
    workdir: with its config.json.
    config: of the run.
    model: of the run.
    data: to train and validate on.

  Raises:
    UserError: when training diverges; the last checkpoint is kept.
  """
  settings = presets.make_train_config(config, model)
  feed = make_feed(model, data.train, config)
  validate = _validator(model, data.validation, config)
  checkpoints = checkpoint.Checkpoints(workdir)
  state = training.init_state(model, settings)
  if checkpoints.latest_step is not None:
    state = checkpoints.restore(state)
    print(f'resuming {workdir} at step {int(state.step)} of {config.steps}')
  log = MetricsLog(workdir, int(state.step), feed.stream.steps_per_epoch)
  chunk = training.make_chunk(model, settings, feed.num_groups)
  bar = tqdm.tqdm(total=config.steps, initial=int(state.step), unit='step',
                  desc='training', dynamic_ncols=True)
  start, step = time.perf_counter(), int(state.step)
  try:
    for state, metrics in training.train(
        state, feed, chunk, num_steps=config.steps,
        chunk_steps=config.chunk_steps):
      seconds = time.perf_counter() - start
      previous, step = step, int(state.step)
      record = training.summarize(metrics.sums) | {
          'grad_norm': float(metrics.grad_norm.mean()),
          'images_per_second': float(metrics.sums.num_rows.sum()) / seconds}
      log.write(step, 'train', record)
      bar.update(step - previous)
      bar.set_postfix_str(
          f'ELBO {record["elbo"]:.1f}, {record["images_per_second"]:.0f} '
          'images/s', refresh=False)
      if _is_due(previous, step, config.eval_every, config.steps):
        log.write(step, 'validation', validate(state.params))
      if _is_due(previous, step, config.checkpoint_every, config.steps):
        log.flush()
        checkpoints.save(state)
      start = time.perf_counter()
  except training.DivergedError as error:
    kept = checkpoints.latest_step
    raise UserError(
        f'{error}; try a smaller --learning_rate. '
        + (f'The checkpoint of step {kept} is kept.' if kept is not None
           else 'There was no checkpoint yet.')) from error
  finally:
    bar.close()
    log.close()
    checkpoints.close()


def finish(workdir: str, data: Splits, values: dict[str, Any]) -> None:
  """Evaluates, draws and reports, as the flags ask for."""
  from experiments import evaluate, figures, report  # Slow to import.

  if values['eval']:
    evaluate.evaluate(workdir, data, vae_workdir=values['vae_workdir'])
  if values['figures']:
    figures.draw_all(workdir, data)
  path = report.write(workdir)
  if values['eval']:
    print(report.summary(workdir))
  print(f'report: {path}')


class MetricsLog:
  """metrics.jsonl and TensorBoard events of a workdir.

  A run that resumes drops what was logged after its checkpoint, so that the
  log is that of an uninterrupted run.
  """

  def __init__(self, workdir: str, step: int, steps_per_epoch: int):
    import tensorboardX  # Slow to import.

    self._path = os.path.join(workdir, 'metrics.jsonl')
    kept = [line for line in read_metrics(workdir) if line['step'] <= step]
    cli.write_atomically(
        self._path, ''.join(json.dumps(line) + '\n' for line in kept))
    self._file = open(self._path, 'a', encoding='utf-8')
    self._events = tensorboardX.SummaryWriter(
        workdir, purge_step=step + 1 if step else None)
    self._steps_per_epoch = steps_per_epoch

  def write(self, step: int, split: str, record: dict[str, Any]) -> None:
    """Writes one record."""
    line = {'step': step, 'epoch': step / self._steps_per_epoch,
            'split': split} | record
    self._file.write(json.dumps(line) + '\n')
    for name, value in record.items():
      if isinstance(value, dict):
        for key, part in value.items():
          self._events.add_scalar(f'{split}/{name}/{key}', part, step)
      else:
        self._events.add_scalar(f'{split}/{name}', value, step)

  def flush(self) -> None:
    """Puts what was written on disk."""
    self._file.flush()
    self._events.flush()

  def close(self) -> None:
    """Flushes and closes both."""
    self._file.close()
    self._events.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """The records of metrics.jsonl; a torn last line is passed over."""
  records = []
  path = os.path.join(workdir, 'metrics.jsonl')
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      for line in file:
        try:
          records.append(json.loads(line))
        except json.JSONDecodeError:
          break
  return records


def _validator(model: Model, images: GroupedImages, config: presets.Config):
  """Function from params to the validation record."""
  feed = make_feed(model, images, config, shuffle=False)
  evaluate = training.make_evaluate(model, feed.num_groups)
  return lambda params: training.evaluate_elbo(
      model, params, feed, evaluate=evaluate)


def _is_due(previous: int, step: int, every: int, last: int) -> bool:
  return step // every > previous // every or step == last


def _check_same_run(workdir: str, config: presets.Config, model: Model
                    ) -> None:
  try:
    old = checkpoint.read_config(workdir)
  except ValueError as error:
    raise UserError(f'{error}; choose another --workdir') from error
  new = presets.to_json(config)
  for name, value in new.items():
    before = old.get('config', {}).get(name, value)
    if before != value and name not in _FREE_TO_CHANGE:
      raise UserError(
          f'{workdir} holds a run with {name}={before}, not {value}; choose '
          'another --workdir, or the same settings to resume it')
  if old['model'] != json.loads(json.dumps(model.to_dict())):
    raise UserError(
        f'{workdir} holds a run of another model, for images of '
        f'{old["model"].get("image_shape")}; choose another --workdir')


if __name__ == '__main__':
  cli.run(main)
