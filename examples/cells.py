"""Counts: cells by type and by donor, with batch effects (simulated).

    python examples/cells.py

The data are drawn here, from a stated model: gene g of a cell of type t from
donor d has a rate of exp(base_g + type_tg + donor_dg), times the cell's depth,
and its count is negative binomial. Two groupings of the same cells: the code
of the type should reveal the type and not the donor, and that of the donor the
donor and not the type.
"""

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression

import mlvae_jax as ml

NUM_TYPES, NUM_DONORS, NUM_GENES, DISPERSION = 6, 8, 60, 4.0


def simulate(num_cells: int, seed: int = 0
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Counts `[N, genes]`, and the type and donor of each cell."""
  rng = np.random.default_rng(0)  # The biology is the same for every seed.
  base, types, donors = (
      scale * rng.normal(size=(count, NUM_GENES)) for scale, count in (
          (1.0, 1), (0.8, NUM_TYPES), (0.4, NUM_DONORS)))
  rng = np.random.default_rng([seed, 1])
  cell_type = rng.integers(NUM_TYPES, size=num_cells)
  donor = rng.integers(NUM_DONORS, size=num_cells)
  rate = np.exp(base + types[cell_type] + donors[donor])
  depth = rng.lognormal(0.0, 0.5, size=(num_cells, 1))
  mean = 1000.0 * depth * rate / rate.sum(axis=1, keepdims=True)
  return (rng.poisson(rng.gamma(DISPERSION, mean / DISPERSION)), cell_type,
          donor)


def main(steps: int = 2000, num_cells: int = 3000) -> dict[str, float]:
  """Accuracy of a linear classifier of each label on each code."""
  x, cell_type, donor = simulate(num_cells)
  data = ml.GroupedData.from_labels(x, {'type': cell_type, 'donor': donor})
  model = ml.Model(
      ml.parse_factors('identity:6:type,batch:6:donor,style:4|identity|batch'),
      (NUM_GENES,),
      ml.NegativeBinomial(), ml.MLP((64,), 'silu'))
  params, _ = ml.fit(
      model, data, steps=steps, groups_per_batch=16, max_group_size=24,
      evidence='random',
      config=ml.TrainConfig(penalties=ml.separating_penalties(model)))

  x, cell_type, donor = simulate(num_cells, seed=1)  # New cells.
  codes = ml.infer(model, params, x)
  half = num_cells // 2
  return {
      f'{label} from {code}': float(LogisticRegression(max_iter=1000).fit(
          codes[code][:half], truth[:half]).score(
              codes[code][half:], truth[half:]))
      for label, truth in (('type', cell_type), ('donor', donor))
      for code in ('identity', 'batch', 'style')}


if __name__ == '__main__':
  for name, accuracy in main(*map(int, sys.argv[1:])).items():
    print(f'{name:20} {accuracy:.3f}')
