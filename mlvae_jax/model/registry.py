"""Plain JSON of objects that a registry names, such as networks."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any


def to_dict(value: Any, registry: Mapping[str, type]) -> dict[str, Any]:
  """A dataclass as {'name': its name in the registry} and its fields."""
  names = {cls: name for name, cls in registry.items()}
  return {'name': names[type(value)], **dataclasses.asdict(value)}


def from_dict(config: Mapping[str, Any], registry: Mapping[str, type]) -> Any:
  """Builds the dataclass of what `to_dict` gave, or JSON made of it.

  Args:
    config: the name, and values of fields.
    registry: dataclasses by name.

  Returns:
    The dataclass.

  Raises:
    ValueError: on an unknown name.
  """
  if config['name'] not in registry:
    raise ValueError(f'unknown name {config["name"]!r}, expected one of '
                     + ', '.join(registry))
  return registry[config['name']](**{
      key: tuple(value) if isinstance(value, list) else value
      for key, value in config.items() if key != 'name'})
