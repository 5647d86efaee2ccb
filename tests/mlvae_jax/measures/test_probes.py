"""Probes: what they find is there, and what is not there they do not find."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.measures import probes
from mlvae_jax.measures.probes import Examples


def _examples(count, seed, informative):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, count)
  codes = rng.normal(size=(count, 2))
  if informative:
    codes += 8 * np.stack([labels == 0, labels == 1], axis=1)
  return Examples(1000 + 50 * codes, labels)  # Far from standardised.


def _probe(informative, test=None):
  train, validation, held_out = (
      _examples(n, seed, informative)
      for seed, n in enumerate((600, 200, 200)))
  return probes.probe(
      train, validation, test or held_out, num_classes=3, num_steps=200)


@pytest.mark.slow
def test_probe_reads_an_informative_code():
  score = _probe(True)
  assert score.accuracy > 0.98
  assert score.conditional_entropy < 0.1


def test_probe_finds_nothing_in_noise():
  score = _probe(False)
  assert abs(score.accuracy - 1 / 3) < 0.12
  # Near the entropy of three equal labels: no wild overconfidence, because
  # the classifier is chosen on validation.
  assert np.log(3) - 0.05 < score.conditional_entropy < np.log(3) + 0.1


def test_chance_is_the_share_of_the_commonest_label():
  labels = np.array([0] * 6 + [1] * 3 + [2])
  score = _probe(True, Examples(np.zeros((10, 2)), labels))
  assert score.chance == 0.6


def test_probe_is_deterministic():
  assert _probe(True) == _probe(True)


@pytest.mark.slow
def test_constant_code_is_no_error():
  flat = Examples(np.ones((30, 2)), np.arange(30) % 3)
  score = probes.probe(flat, flat, flat, num_classes=3, num_steps=20)
  assert np.isfinite(score.conditional_entropy)


@pytest.mark.parametrize('k', [1, 2, 5])
def test_windows_group_k_distinct_images_of_a_label(k):
  offsets = np.array([0, 5, 5, 6, 16])  # Sizes 5, 0, 1, 10.
  rows, labels = probes.evidence_windows(offsets, k, seed=0)
  assert rows.shape == (sum(n for n in (5, 1, 10) if n >= k), k)
  for members, label in zip(rows, labels):
    assert len(set(members)) == k
    assert all(offsets[label] <= m < offsets[label + 1] for m in members)


def test_each_image_is_in_k_windows():
  rows, _ = probes.evidence_windows(np.array([0, 7, 19]), 4, seed=0)
  assert np.bincount(rows.ravel()).tolist() == [4] * 19


def test_too_much_evidence_leaves_nothing():
  rows, labels = probes.evidence_windows(np.array([0, 3]), 4, seed=0)
  assert rows.shape == (0, 4) and labels.shape == (0,)


@pytest.mark.slow
def test_where_there_is_nothing_to_learn_the_bound_is_the_labels_entropy():
  """Also for codes and labels that invite to learn noise by heart."""
  rng = np.random.default_rng(0)
  train, validation, test = (
      Examples(rng.normal(size=(n, 20)), np.arange(n) % 5)
      for n in (100, 50, 5000))
  score = probes.probe(train, validation, test, num_classes=5, num_steps=300)
  assert score.conditional_entropy < np.log(5) + 0.02


@pytest.mark.parametrize('codes, labels, match', [
    (np.nan, 0, 'finite test codes'), (np.inf, 0, 'finite test codes'),
    (0.0, 3, r'test labels in \[0, 3\)'), (0.0, -1, 'test labels')])
def test_what_cannot_be_scored_is_refused(codes, labels, match):
  test = Examples(np.full((4, 2), codes), np.full(4, labels))
  with pytest.raises(ValueError, match=match):
    _probe(True, test)


@pytest.mark.parametrize('scale', [1e-7, 1e-3, 1e30])
def test_the_scale_of_codes_does_not_matter(scale):
  train, validation, test = (
      Examples(scale * e.codes, e.labels)
      for e in (_examples(n, seed, True)
                for seed, n in enumerate((600, 200, 200))))
  score = probes.probe(train, validation, test, num_classes=3, num_steps=200)
  assert score.accuracy > 0.98


@pytest.mark.slow
def test_codes_of_low_precision_are_standardised_in_high():
  train, validation, test = (
      Examples(jnp.asarray(e.codes / 50 - 17, dtype), e.labels)
      for dtype in [jnp.bfloat16] for e in (
          _examples(n, seed, True)
          for seed, n in enumerate((20_000, 2000, 2000))))
  score = probes.probe(train, validation, test, num_classes=3, num_steps=200)
  assert score.accuracy > 0.98


@pytest.mark.slow
@pytest.mark.parametrize('hidden_sizes, low, high', [
    ((), 0.4, 0.6), ((2,), 0.4, 0.65), ((64, 64), 0.9, 1.0)])
def test_a_larger_probe_solves_what_a_small_one_cannot(
    hidden_sizes, low, high):
  """Whether the signs of four numbers have an even number of minuses."""
  train, validation, test = (
      Examples(codes, (np.prod(codes, axis=1) > 0).astype(int))
      for codes in (np.random.default_rng(seed).normal(size=(n, 4))
                    for seed, n in enumerate((4000, 500, 1000))))
  score = probes.probe(train, validation, test, num_classes=2, num_steps=1500,
                       hidden_sizes=hidden_sizes)
  assert low < score.accuracy < high


@pytest.mark.parametrize('hidden_sizes', [(0,), (8, -1)])
def test_hidden_layers_have_units(hidden_sizes):
  example = _examples(9, 0, True)
  with pytest.raises(ValueError, match='hidden_sizes >= 1'):
    probes.probe(example, example, example, num_classes=3,
                 hidden_sizes=hidden_sizes)


def test_a_probe_takes_a_step():
  example = _examples(9, 0, True)
  with pytest.raises(ValueError, match='num_steps >= 1'):
    probes.probe(example, example, example, num_classes=3, num_steps=0)
