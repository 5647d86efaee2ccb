"""What steps of training cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import costs, training
from mlvae_jax.model.convolution import downsample, upsample


def _array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def test_a_product_costs_its_arithmetic_and_its_matrices():
  found = costs.cost_of(
      lambda a, b: jnp.tanh(a @ b), _array(2, 3), _array(3, 5))
  assert found == costs.Cost(2 * 2 * 3 * 5, 4 * (6 + 15 + 10))
  low = costs.cost_of(jnp.matmul, *(
      _array(*shape, dtype=jnp.bfloat16) for shape in ((2, 3), (3, 5))))
  assert low == costs.Cost(found.flops, found.num_bytes / 2)


def test_loops_count_every_round_and_calls_what_they_call():
  def apply(x, w):
    return jax.lax.scan(
        lambda x, _: (jax.jit(jnp.matmul)(x, w), None), x, length=7)

  found = costs.cost_of(apply, _array(4, 4), _array(4, 4))
  assert found == costs.Cost(7 * 2 * 64, 7 * 4 * 48)
  assert costs.cost_of(jnp.tanh, _array(4)) == costs.Cost(0, 0)


def test_resampling_costs_the_same_forth_and_back():
  # Each pixel of the small image and each of its 16 taps, once.
  flops = 2 * (3 * 4 * 4) * 16 * 2 * 5
  small, large = _array(3, 4, 4, 5), _array(3, 8, 8, 2)
  kernel = _array(4, 4, 2, 5)
  assert costs.cost_of(downsample, large, kernel).flops == flops
  assert costs.cost_of(upsample, small, _array(4, 4, 5, 2)).flops == flops

  def gradients(image, kernel):
    return jax.grad(lambda *v: downsample(*v).sum(), argnums=(0, 1))(
        image, kernel)

  np.testing.assert_allclose(
      costs.cost_of(gradients, large, kernel).flops, 3 * flops)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_step_costs_what_its_layers_do(dtype):
  workload = training.mlp()
  workload = dataclasses.replace(
      workload, model=dataclasses.replace(workload.model, dtype=dtype))
  num_images, weights = 256, (
      784 * 500 + 500 * 40, 20 * 500 + 500 * 2 * 784)
  # Forward, and back to the weights and to the input, which the first layer's
  # needs no gradient in.
  least = 2 * num_images * (3 * sum(weights) - 784 * 500)
  found = workload.cost()
  assert least <= found.flops < 1.01 * least
  parameters = 4 * (sum(weights) + 500 + 40 + 500 + 2 * 784)
  size = 4 if dtype == 'float32' else 2
  assert found.num_bytes > 7 * parameters + 3 * size * sum(weights)
  assert costs.step_cost(
      workload.model, training._SETTINGS, 2 * num_images,
      {'content': 8}).flops == pytest.approx(2 * found.flops, rel=1e-3)
