"""What a step of training has to do: arithmetic, and traffic with memory.

Counted in the step as JAX traces it, before a compiler has a say, so that the
same step costs the same on every device. Matrix products and convolutions
count, and nothing else: they do nearly all the arithmetic, and at best the
operations between them happen on the way. The traffic is therefore the least
there can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model
from mlvae_jax.training.step import TrainConfig, init_state, train_step

# Adam reads parameters, gradients and two moments, and writes all but one.
_ADAM_PASSES = 7


class Cost(NamedTuple):
  """What a computation does at least.

  Attributes:
    flops: number of multiplications and additions.
    num_bytes: number of bytes read and written.
  """

  flops: float
  num_bytes: float


def step_cost(model: Model, config: TrainConfig, num_images: int,
              num_groups: Mapping[str, int]) -> Cost:
  """The cost of a step of training.

  Args:
    model: with an encoder.
    config: settings of the optimisation.
    num_images: N, images in a batch.
    num_groups: number of groups per grouped factor.

  Returns:
    The cost, the update of the parameters included.
  """
  def array(shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)

  batch = Batch(
      array((num_images, *model.observation_shape), jnp.uint8),
      {f.name: array((num_images,)) for f in model.grouped},
      array((num_images,), bool), array((num_images,)))
  state = jax.eval_shape(lambda: init_state(model, config))
  found = cost_of(
      lambda state, batch: train_step(
          model, config, num_groups, state, batch), state, batch)
  parameters = sum(map(_num_bytes, jax.tree.leaves(state.params)))
  return found._replace(num_bytes=found.num_bytes + _ADAM_PASSES * parameters)


def cost_of(function: Callable, *args: Any) -> Cost:
  """The cost of a function's matrix products and convolutions.

  Args:
    function: of arrays, that JAX can trace.
    *args: trees of arrays, or of what has their shapes and types.

  Returns:
    The cost: of both branches where there are two, the larger one.
  """
  return _sum_of(jax.make_jaxpr(function)(*args).jaxpr)


def _sum_of(jaxpr: core.Jaxpr) -> Cost:
  costs = [_cost_of_equation(equation) for equation in jaxpr.eqns]
  return Cost(*map(sum, zip((0.0, 0.0), *costs)))


def _cost_of_equation(equation: core.JaxprEqn) -> Cost:
  name = equation.primitive.name
  if name in ('dot_general', 'conv_general_dilated'):
    arrays = [var.aval for var in (*equation.invars, *equation.outvars)]
    flops = (_product_flops if name == 'dot_general' else _convolution_flops)(
        equation, *arrays)
    return Cost(float(flops), float(sum(map(_num_bytes, arrays))))
  inner = [_sum_of(jaxpr)
           for jaxpr in core.jaxprs_in_params(equation.params)]
  if name == 'cond':  # Also what differs between CPUs and other devices.
    return Cost(*map(max, zip((0.0, 0.0), *inner)))
  times = equation.params['length'] if name == 'scan' else 1
  return Cost(*(times * sum(values) for values in zip((0.0, 0.0), *inner)))


def _product_flops(equation, left, right, result) -> int:
  del right
  (contracted, _), _ = equation.params['dimension_numbers']
  return 2 * result.size * math.prod(left.shape[i] for i in contracted)


def _convolution_flops(equation, image, kernel, result) -> float:
  """Zeros between the pixels of an image cost nothing; those around it do."""
  del image
  features = kernel.shape[equation.params['dimension_numbers'].rhs_spec[0]]
  return 2 * result.size * kernel.size / features / (
      math.prod(equation.params['lhs_dilation'])
      * equation.params['batch_group_count'])


def _num_bytes(array: Any) -> int:
  return array.size * array.dtype.itemsize
