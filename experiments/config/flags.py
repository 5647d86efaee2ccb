"""One way to declare a flag: type, default, choices, bounds, help, subject.

A setting of a run is a field of a dataclass, declared by `setting`; any other
flag is declared directly as a `Setting`. `define` turns either into an absl
flag. `--help` lists flags by subject.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import os
import sys
import types
import typing
from typing import Any, NewType

from absl import flags

Path = NewType('Path', str)  # A file or folder; see `expand_path`.
_MAX_INT = 2 ** 31 - 1  # JAX counts in 32 bits.


@dataclasses.dataclass(frozen=True)
class Setting:
  """The declaration of a flag, or of a setting of a run.

  Attributes:
    text: help text in sentences, the first of which starts with a noun that
      says what the value is.
    subject: heading under which `--help` and the docs list the flag.
    type: str, int, float, bool, `Path`, or a tuple of these for values
      separated by commas, which arrive as strings.
    default: value of a flag that is not given.
    choices: allowed values of a str; () allows any.
    lower: smallest allowed number; None allows any.
    upper: largest allowed number; None allows any.
    required: whether the flag must be given.
  """

  text: str
  subject: str
  type: Any = str
  default: Any = None
  choices: Sequence[str] = ()
  lower: float | None = None
  upper: float | None = None
  required: bool = False


def setting(default: Any, text: str, subject: str, **rest: Any) -> Any:
  """Declares a field of a dataclass; its annotation is the type.

  Args:
    default: default value of the field.
    text: help text, see `Setting`.
    subject: heading, see `Setting`.
    **rest: choices, lower and upper of `Setting`.

  Returns:
    The field.
  """
  return dataclasses.field(
      default=default, metadata={'setting': Setting(text, subject, **rest)})


def settings_of(cls: type) -> dict[str, Setting]:
  """The settings that a dataclass declares, in the order of its fields."""
  # Annotations are strings until `get_type_hints` evaluates them.
  types_of = typing.get_type_hints(cls)
  return {
      field.name: dataclasses.replace(
          field.metadata['setting'], default=field.default,
          type=_without_none(types_of[field.name]))
      for field in dataclasses.fields(cls)}


class _FiniteParser(flags.FloatParser):
  """Floats without NaN and infinity, which pass through absl's bounds."""

  def parse(self, argument: Any) -> float:
    value = super().parse(argument)
    if not math.isfinite(value):
      raise ValueError('not a finite number')
    return value


def define(name: str, declared: Setting,
           flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines an absl flag.

  Args:
    name: name of the flag, without dashes.
    declared: its declaration.
    flag_values: registry in which to define it.
  """
  # As its module name the subject groups the flag in absl's help.
  where = {'flag_values': flag_values, 'module_name': declared.subject,
           'required': declared.required}
  what = name, declared.default
  bounds = {'lower_bound': declared.lower, 'upper_bound': declared.upper}
  if declared.choices:
    flags.DEFINE_enum(*what, list(declared.choices), declared.text, **where)
  elif declared.type is Path:
    flags.DEFINE(_PathParser(), *what, declared.text, **where)
  elif declared.type is bool:
    flags.DEFINE_bool(*what, declared.text, **where)
  elif declared.type is int:
    bounds['upper_bound'] = declared.upper or _MAX_INT
    flags.DEFINE_integer(*what, declared.text, **bounds, **where)
  elif declared.type is float:
    flags.DEFINE(_FiniteParser(**bounds), *what, declared.text, **where)
  elif declared.type is str:
    flags.DEFINE_string(*what, declared.text, **where)
  else:
    # Elements stay strings: a bad one is reported with the setting's own form.
    flags.DEFINE_list(*what, declared.text, **where)


def expand_path(path: str | None) -> str | None:
  """The absolute form of a path that may contain ~ and $VARIABLES.

  Args:
    path: path as the user gave it; None and '' are returned unchanged.

  Returns:
    The absolute path.
  """
  if not path:
    return path
  return os.path.abspath(os.path.expandvars(os.path.expanduser(path)))


class HelpFlag(flags.BooleanFlag):
  """A flag that prints the main module's docstring and flags, then exits."""

  def __init__(self, name: str, short_name: str | None = None):
    super().__init__(name, False, 'Show this help.', short_name,
                     allow_override=True)  # Replaces absl's own flag.

  def parse(self, argument: str | bool) -> None:
    """Prints and exits, unless the argument is false."""
    super().parse(argument)
    if self.value:
      print(sys.modules['__main__'].__doc__ + '\nflags:')
      print(help_by_subject(flags.FLAGS))
      print('\nTry --helpfull to get a list of all flags.')
      sys.exit(0)


def help_by_subject(flag_values: flags.FlagValues) -> str:
  """The help of the flags that `define` has defined, under their subjects."""
  # To absl a subject is a module. Real modules are in packages, so their names
  # contain a dot; their flags are for --helpfull.
  return '\n'.join(
      flag_values.module_help(subject)
      for subject in flag_values.flags_by_module_dict() if '.' not in subject)


class _PathParser(flags.ArgumentParser):
  """Expands a path when flags are parsed."""

  def parse(self, argument: str) -> str:
    return expand_path(argument)

  def flag_type(self) -> str:
    return 'path'


def _without_none(kind: Any) -> Any:
  """The type X of `X | None`; any other type itself."""
  if typing.get_origin(kind) in (types.UnionType, typing.Union):
    kind, = (one for one in typing.get_args(kind) if one is not type(None))
  return kind
