"""Reading the file of a study, and checking its form."""

from __future__ import annotations

from collections.abc import Iterable
import os
import re
import tomllib
from typing import Any

from experiments.cli import UserError
from experiments.evaluation.registry import SECTIONS
from experiments.studies.definition import (
    REDUCTIONS,
    Choice,
    Column,
    Flags,
    Scatter,
    Study,
)

_FOLDER = os.path.dirname(__file__)
_REQUIRED = object()
_KINDS = {str: 'text', bool: 'true or false', int: 'an integer',
          (int, float): 'a number', list: 'a list', dict: 'a table',
          (dict, list): 'a table'}
# What the study gives to the commands itself.
_OF_TRAINING = ('workdir', 'seed', 'resume', 'eval', 'figures')
_OF_EVALUATION = ('workdir',)
# No hyphen, which separates the parts of a folder's name.
_NAME = re.compile('[A-Za-z0-9_]+')


def names() -> list[str]:
  """The names of the studies that come with this package."""
  return sorted(name.removesuffix('.toml') for name in os.listdir(_FOLDER)
                if name.endswith('.toml'))


def read(name: str) -> Study:
  """Reads a study.

  Args:
    name: name of a study of this package, or path of a .toml file.

  Returns:
    The study.

  Raises:
    UserError: when there is no such file, or it is not a study. The message
      names the file and the table.
  """
  path = name
  if not name.endswith('.toml'):
    path = os.path.join(_FOLDER, f'{name}.toml')
    if name not in names():
      raise UserError(f'no study {name!r}; give one of {", ".join(names())}, '
                      'or the path of a .toml file')
  try:
    with open(path, 'rb') as file:
      values = tomllib.load(file)
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise UserError(f'{path} is not TOML: {error}') from error
  except FileNotFoundError as error:
    raise UserError(f'there is no study {path}') from error
  return _study(path, _Table(path, '', values))


class _Table:
  """A table of the file, whose keys are taken one by one."""

  def __init__(self, path: str, name: str, values: dict[str, Any]):
    self.name = name
    self._path = path
    self._rest = dict(values)

  def error(self, message: str) -> UserError:
    """An error that names the file and the table."""
    where = f'{self._path}, [{self.name}]' if self.name else self._path
    return UserError(f'{where}: {message}')

  def take(self, key: str, kind: type | tuple[type, ...],
           default: Any = _REQUIRED) -> Any:
    """Takes the value of a key, which is of a kind."""
    value = self._rest.pop(key, default)
    if value is _REQUIRED:
      raise self.error(f'{key} is missing')
    # True is an int in Python, but not in TOML.
    if value is not default and (
        not isinstance(value, kind)
        or isinstance(value, bool) and kind is not bool):
      raise self.error(f'{key} = {value!r} is not {_KINDS[kind]}')
    return value

  def table(self, key: str) -> _Table:
    """Takes a table inside this one, empty if it is missing."""
    name = f'{self.name}.{key}' if self.name else key
    return _Table(self._path, name, self.take(key, dict, {}))

  def tables(self, key: str) -> list[_Table]:
    """Takes all tables in a table, by name, or in an array, by number."""
    values = self.take(key, (dict, list), {})
    if isinstance(values, list):
      values = {f'{i}': value for i, value in enumerate(values, start=1)}
    for name, value in values.items():
      if not isinstance(value, dict):
        raise self.error(f'{key}.{name} is not a table')
    return [_Table(self._path, f'{key}.{name}', value)
            for name, value in values.items()]

  def flags(self, reserved: tuple[str, ...] = ()) -> Flags:
    """Takes the rest, as flags; some belong to the study itself."""
    values, self._rest = self._rest, {}
    for name in reserved:
      if name in values:
        raise self.error(f'{name} is set by the study itself; leave it out')
    return Flags(self.name, {
        name: self._text(name, value) for name, value in values.items()})

  def end(self) -> None:
    """Checks that nothing is left."""
    if self._rest:
      raise self.error(f'unknown key {next(iter(self._rest))!r}')

  def _text(self, name: str, value: Any) -> str:
    if isinstance(value, bool):
      return str(value).lower()
    if isinstance(value, (str, int, float)):
      return str(value)
    if isinstance(value, list):
      return ','.join(self._text(name, one) for one in value)
    raise self.error(f'{name} = {value!r} is not the value of a flag')


def _study(path: str, top: _Table) -> Study:
  name = os.path.basename(path).removesuffix('.toml')
  seeds = top.take('seeds', list, [0, 1, 2])
  if not seeds or len(set(map(str, seeds))) < len(seeds) or not all(
      type(seed) is int and seed >= 0 for seed in seeds):
    raise top.error(f'seeds = {seeds} is not a list of different integers >= 0')
  columns = _different(top, map(_column, top.tables('columns')))
  study = Study(
      name=name, path=path, title=top.take('title', str, name),
      about=top.take('about', str, ''), seeds=tuple(seeds),
      flags=top.table('flags').flags(_OF_TRAINING),
      evaluate=top.table('evaluate').flags(_OF_EVALUATION),
      settings=tuple(map(_choice, top.tables('settings'))),
      data=tuple(map(_choice, top.tables('data'))) or (
          Choice('', '', Flags('data'), Flags('data.evaluate')),),
      columns=columns,
      figures=_different(top, (
          _figure(table, columns) for table in top.tables('figures'))))
  if not study.settings:
    raise top.error('there are no settings: add a table [settings.NAME]')
  # --only takes both kinds of names.
  _different(top, study.settings + study.data)
  top.end()
  return study


def _different(top: _Table, parts: Iterable[Any]) -> tuple[Any, ...]:
  """The parts, after checking that no two of them have the same name."""
  parts = tuple(parts)
  given = [part.name for part in parts]
  for name in given:
    if given.count(name) > 1:
      raise top.error(f'the name {name!r} is given twice')
  return parts


def _choice(table: _Table) -> Choice:
  name = table.name.partition('.')[2]
  _check_name(table, name)
  return Choice(
      name=name, label=table.take('label', str, name.replace('_', ' ')),
      evaluate=table.table('evaluate').flags(_OF_EVALUATION),
      flags=table.flags(_OF_TRAINING))


def _column(table: _Table) -> Column:
  name = table.take('name', str)
  _check_name(table, name)
  where = table.take('where', dict, {})
  column = Column(
      name=name, heading=table.take('heading', str, name.replace('_', ' ')),
      section=table.take('section', str),
      where={key: tuple(value) if isinstance(value, list) else (value,)
             for key, value in where.items()},
      field=table.take('field', str), minus=table.take('minus', str, ''),
      reduce=table.take('reduce', str, 'only'),
      scale=table.take('scale', (int, float), 1),
      decimals=table.take('decimals', int, 2),
      chance=table.take('chance', bool, False))
  sections = [key for section in SECTIONS for key in section.keys]
  if column.section not in sections:
    raise table.error(f'the evaluation has no section {column.section!r}; its '
                      f'sections are {", ".join(sections)}')
  if column.reduce not in REDUCTIONS:
    raise table.error(f'reduce = {column.reduce!r} is not one of '
                      + ', '.join(REDUCTIONS))
  table.end()
  return column


def _figure(table: _Table, columns: tuple[Column, ...]) -> Scatter:
  name = table.take('name', str)
  _check_name(table, name)
  figure = Scatter(
      name=name, title=table.take('title', str, name.replace('_', ' ')),
      x=table.take('x', str), y=table.take('y', str),
      size=table.take('size', str, ''), caption=table.take('caption', str, ''))
  known = [column.name for column in columns]
  for column in filter(None, (figure.x, figure.y, figure.size)):
    if column not in known:
      raise table.error(f'there is no column {column!r}; the columns are '
                        + (', '.join(known) or 'missing'))
  table.end()
  return figure


def _check_name(table: _Table, name: str) -> None:
  if not _NAME.fullmatch(name):
    raise table.error(
        f'the name {name!r} may contain only letters, digits and underscores')
