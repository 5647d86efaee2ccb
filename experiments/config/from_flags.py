"""The configuration that flags ask for: a preset with changes on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from experiments.config.presets import PRESETS, without_extras
from experiments.config.settings import REAL_LIKELIHOODS, SETTINGS, Config

# The optimisation of the first author's code, and its network for digits.
_AUTHORS = {'learning_rate': 1e-3, 'decay_fraction': 0.0, 'augment': ''}
_AUTHORS_NETWORK = {'hidden_sizes': (500,)}


def given_settings(values: Mapping[str, Any]) -> dict[str, Any]:
  """The settings that the user gave as flags; the flags of others are None."""
  return {name: value for name, value in values.items()
          if name in SETTINGS and value is not None}


def make_config(values: Mapping[str, Any]) -> Config:
  """The preset of --dataset, overridden by the flags that were given.

  Args:
    values: values of the flags by name; None for a flag that was not given.

  Returns:
    The configuration.

  Raises:
    ValueError: when a value, or a combination of values, makes no sense.
  """
  preset = PRESETS[values['dataset']]
  given = given_settings(values)
  if given.get('objective') == 'paper':
    preset = dataclasses.replace(
        without_extras(preset), **_AUTHORS,
        **(_AUTHORS_NETWORK if values['dataset'] == 'mnist5k' else {}))
  for name, value in given.items():
    if SETTINGS[name].type == tuple[int, ...]:
      given[name] = _numbers(name, value, int)
  if 'split_fractions' in given:
    given['split_fractions'] = _fractions(given['split_fractions'])
  if given.get('model') in ('vae', 'svi'):
    # The extras need groups, and an encoder. Those given as flags stay, and
    # are then reported as unfit.
    preset = without_extras(preset)
  if given.get('subsampling') == 'unbiased':  # It draws its own evidence.
    given = {'evidence': 'all'} | given
  if given.get('likelihood', preset.likelihood) not in REAL_LIKELIHOODS:
    given = {'standardise': False} | given  # Counts and tokens stay as such.
  # A VAE has no groups, so its batch size is one setting; otherwise it is
  # another way to give groups_per_batch.
  if 'batch_size' in given and given.get('model', preset.model) != 'vae':
    if 'groups_per_batch' in given:
      raise ValueError('give --batch_size or --groups_per_batch, not both')
    given['groups_per_batch'] = _groups_per_batch(
        given['batch_size'],
        given.get('max_group_size', preset.max_group_size))
  return dataclasses.replace(preset, **given)


def _groups_per_batch(batch_size: int, max_group_size: int) -> int:
  """Number of groups in a step; a ValueError when not even one fits."""
  if batch_size < max_group_size:
    raise ValueError(
        f'--batch_size={batch_size} is too small for a group of '
        f'--max_group_size={max_group_size} rows; give a larger --batch_size '
        'or a smaller --max_group_size')
  return batch_size // max_group_size


def _numbers(name: str, values: Sequence[str], kind: type) -> tuple:
  try:
    return tuple(map(kind, values))
  except ValueError:
    what = 'integers' if kind is int else 'numbers'
    raise ValueError(f'expected --{name} as comma-separated {what}, got '
                     + ','.join(values)) from None


def _fractions(values: Sequence[str]) -> tuple[float, float]:
  shares = _numbers('split_fractions', values, float)
  if len(shares) != 2 or not (min(shares) > 0 and sum(shares) < 1):
    raise ValueError(
        'expected --split_fractions as the fractions for validation and test, '
        'each above 0 and together below 1, got ' + ','.join(values))
  return shares
