"""Networks by name."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from mlvae_jax.model import registry
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.conv1d import Conv1D
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.modules import Modules
from mlvae_jax.model.networks.network import Network
from mlvae_jax.model.networks.tokens import Tokens

NETWORKS: dict[str, type[Network]] = {
    'mlp': MLP, 'conv': Conv, 'conv1d': Conv1D, 'tokens': Tokens}


def register_network(name: str, cls: type[Network]) -> None:
  """Registers a custom network, so that workdirs of it can be loaded.

  Args:
    name: name of the network in config.json.
    cls: subclass of `Network`, a frozen dataclass whose fields JSON can hold;
      lists are read as tuples.

  Raises:
    ValueError: on a name that is taken, or a class that JSON cannot hold.
  """
  if NETWORKS.get(name, cls) is not cls:
    raise ValueError(f'{name!r} is the name of {NETWORKS[name].__name__}')
  if not (isinstance(cls, type) and issubclass(cls, Network)
          and dataclasses.is_dataclass(cls) and cls.__hash__):
    raise ValueError(
        'expected a frozen dataclass that is a subclass of mlvae_jax.Network, '
        f'got {cls!r}')
  if any(known is cls for other, known in NETWORKS.items() if other != name):
    raise ValueError(f'{cls.__name__} is registered under another name')
  NETWORKS[name] = cls


def is_built_in(network: Network) -> bool:
  """Whether a network is one of the library's own."""
  return type(network) in (MLP, Conv, Conv1D, Tokens)


def to_dict(network: Network) -> dict[str, Any]:
  """A network as JSON; one that has no name is described only."""
  if type(network) in NETWORKS.values():
    return registry.to_dict(network, NETWORKS)
  return {'name': None, 'own': (
      str(network) if isinstance(network, Modules)
      else f'{type(network).__module__}.{type(network).__qualname__}')}


def from_dict(config: Mapping[str, Any]) -> Network:
  """Builds the network that `to_dict` wrote.

  Args:
    config: output of `to_dict`, possibly read from JSON.

  Returns:
    The network.

  Raises:
    KeyError: without a name.
    ValueError: on an unknown name, or a network that was not registered.
  """
  if config['name'] is None:
    raise ValueError(
        f'the network is not one of this library ({config.get("own")}); in '
        'Python pass the model, as in mlvae_jax.load(workdir, model=model), or '
        'use a network that is registered by mlvae_jax.register_network')
  if config['name'] not in NETWORKS:
    raise ValueError(
        f'unknown network {config["name"]!r}, expected one of '
        f'{", ".join(NETWORKS)}; call mlvae_jax.register_network first if it '
        'is one of your own')
  return registry.from_dict(config, NETWORKS)
