"""Writes docs/settings.md: every setting, and what the presets change.

  python -m experiments.config.settings_table > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Iterator
import itertools
from typing import Any

from experiments.config.flags import Path, Setting
from experiments.config.presets import PRESETS
from experiments.config.settings import SETTINGS, Config

_INTRODUCTION = """\
# Settings

Each setting is a flag of `python -m experiments.train`, a key of `config.json`
in the workdir and a field of `experiments.config.settings.Config`, from which
this page is generated. The preset of a data set gives the values; flags
override them. With `--help` the command also lists the flags that say what one
call of it does, such as `--workdir` and `--resume`.
"""
_PRESETS = """\
## Presets

The settings in which each preset differs from the defaults above:
"""


def page() -> str:
  """All of docs/settings.md."""
  by_subject: dict[str, list[tuple[str, Setting]]] = {}
  for name, setting in SETTINGS.items():
    by_subject.setdefault(setting.subject, []).append((name, setting))
  return '\n'.join([
      _INTRODUCTION,
      *itertools.chain(*(_table(*both) for both in by_subject.items())),
      _PRESETS,
      *(_preset(name, config) for name, config in PRESETS.items()), ''])


def _table(subject: str, found: list[tuple[str, Setting]]) -> Iterator[str]:
  yield f'## {subject}\n'
  yield '| flag | values | default | meaning |'
  yield '|---|---|---|---|'
  for name, setting in found:
    # An unescaped bar, as in p(x | z), would end the cell.
    text = setting.text.replace('|', '\\|')
    yield (f'| `--{name}` | {_values(name, setting)} | '
           f'{_code(setting.default)} | {text} |')
  yield ''


def _values(name: str, setting: Setting) -> str:
  """The values that a setting takes, in words."""
  # The settings do not know the presets, which are made of them.
  choices = PRESETS if name == 'dataset' else setting.choices
  if choices:
    return ', '.join(map(_code, choices))
  kind = {
      str: 'text', int: 'integer', float: 'number', bool: '`true`, `false`',
      Path: 'path', tuple[int, ...]: 'integers',
      tuple[float, float]: 'two numbers'}
  what = kind[setting.type]
  if setting.upper is not None:
    return f'{what} from {setting.lower:g} to {setting.upper:g}'
  return what if setting.lower is None else f'{what} ≥ {setting.lower:g}'


def _preset(name: str, config: Config) -> str:
  changes = [
      f'--{key}={_text(value)}' for key, setting in SETTINGS.items()
      if (value := getattr(config, key)) != setting.default
      and key != 'dataset']
  return f'- `{name}`: ' + (
      ', '.join(f'`{change}`' for change in changes) or 'nothing')


def _code(value: Any) -> str:
  text = _text(value)
  return f'`{text}`' if text else ''


def _text(value: Any, digits: int = 4) -> str:
  """A value as it would be written in a flag; '' for None."""
  if isinstance(value, tuple):
    return ','.join(_text(one, digits) for one in value)
  if isinstance(value, float):
    return f'{value:.{digits}g}'
  if isinstance(value, bool):
    return str(value).lower()
  return '' if value is None else str(value)


if __name__ == '__main__':
  print(page(), end='')
