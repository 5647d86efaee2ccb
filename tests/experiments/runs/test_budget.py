"""What a validation and an evaluation can afford."""

import pytest

from experiments.runs.budget import budget_of
import mlvae_jax


@pytest.mark.parametrize('kind', [
    mlvae_jax.Product, mlvae_jax.Mixture, mlvae_jax.Free])
def test_a_model_without_an_encoder_affords_less(kind):
  model = mlvae_jax.Model(
      mlvae_jax.ml_vae(1, 1), (2, 2, 1), group_posterior=kind())
  budget = budget_of(model)
  if kind is not mlvae_jax.Free:
    assert (budget.validation_images, budget.elbo_images) == (10_000, 50_000)
    assert budget.ks == tuple(range(1, 11)) and budget.has_untrained
    assert budget.probe_images == (None, None, None)
  else:
    assert (budget.validation_images, budget.elbo_images) == (1000, 2000)
    assert budget.ks == (1, 2, 5) and not budget.has_untrained
    assert budget.probe_images == (2000, 500, 1000)
