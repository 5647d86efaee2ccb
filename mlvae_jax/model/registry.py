"""Writes objects that a registry names, such as networks, to plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any


def to_dict(value: Any, registry: Mapping[str, type]) -> dict[str, Any]:
  """A dataclass as a dict of 'name', its name in the registry, and fields."""
  names = {cls: name for name, cls in registry.items()}
  return {'name': names[type(value)], **dataclasses.asdict(value)}


def from_dict(config: Mapping[str, Any], registry: Mapping[str, type]) -> Any:
  """Builds what `to_dict` wrote, also after a trip through JSON.

  Args:
    config: name in the registry, and values of the dataclass's fields.
    registry: dataclasses by name.

  Returns:
    The dataclass.

  Raises:
    KeyError: without a name.
    ValueError: on an unknown name, or values that the dataclass rejects.
    TypeError: on a field that the dataclass does not have.
  """
  if config['name'] not in registry:
    raise ValueError(f'unknown name {config["name"]!r}, expected one of '
                     + ', '.join(registry))
  # JSON has no tuples, and a dataclass with a list could not be hashed.
  return registry[config['name']](**{
      key: tuple(value) if isinstance(value, list) else value
      for key, value in config.items() if key != 'name'})
