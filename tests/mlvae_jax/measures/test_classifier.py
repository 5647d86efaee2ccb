"""Classifiers of padded examples: padding and early ends change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlvae_jax.measures import classifier, probes
from mlvae_jax.measures.classifier import Padded
from mlvae_jax.measures.probes import Examples


def _examples(count, seed, width=3):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, count)
  codes = rng.normal(size=(count, width))
  codes[:, 0] += 2 * labels
  return Examples(codes, labels)


def _splits(width=3):
  return [_examples(n, seed, width) for seed, n in enumerate((300, 90, 80))]


def _probe(splits, **changes):
  return probes.probe(*splits, **{
      'num_classes': 3, 'num_steps': 150, 'hidden_sizes': (32,)} | changes)


@pytest.fixture
def fresh():
  """Programs compiled before a test, or in it, are not used after it."""
  classifier.fit.clear_cache()
  yield
  classifier.fit.clear_cache()


@pytest.fixture
def traces(monkeypatch, fresh):
  """A list that grows whenever `fit` is compiled."""
  found, loss = [], classifier._loss
  monkeypatch.setattr(classifier, '_loss', lambda *args: (
      found.append(1), loss(*args))[1])
  return found


@pytest.mark.parametrize('size, padded', [
    (1, 16), (16, 16), (17, 32), (4000, 4096)])
def test_sizes_are_padded_to_powers_of_two(size, padded):
  assert classifier.padded_size(size) == padded


@pytest.mark.parametrize('size, padded', [
    (1, 16), (10, 16), (64, 64), (65, 80), (784, 784), (785, 800)])
def test_wide_codes_are_padded_little(size, padded):
  assert classifier.padded_width(size) == padded


@pytest.mark.slow
@pytest.mark.parametrize('what', ['padded_size', 'padded_width'])
def test_more_padding_changes_nothing(what, monkeypatch):
  expected = _probe(_splits())
  original = getattr(classifier, what)
  monkeypatch.setattr(classifier, what, lambda size: 4 * original(size))
  found = _probe(_splits())
  # Longer sums are rounded otherwise.
  np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_padding_is_not_scored():
  params = classifier.initial((), 2, np.array([0.25, 0.75]), 0)
  codes, labels = np.zeros((16, 16), np.float32), np.zeros(16, np.int32)
  labels[:5] = [1, 1, 1, 0, 1]
  codes[5:] = np.nan
  entropy, accuracy = classifier.score(params, Padded(codes, labels, 5))
  np.testing.assert_allclose(accuracy, 0.8, rtol=1e-6)
  np.testing.assert_allclose(
      entropy, -0.8 * np.log(0.75) - 0.2 * np.log(0.25), rtol=1e-5)


@pytest.mark.slow
def test_many_examples_are_scored_in_chunks():
  rng = np.random.default_rng(0)
  codes = rng.normal(size=(4096, 16)).astype(np.float32)
  labels = rng.integers(0, 3, 4096).astype(np.int32)
  params = [(rng.normal(size=(16, 16)).astype(np.float32), np.zeros(16))]
  entropy, accuracy = classifier.score(params, Padded(codes, labels, 2500))
  logits = codes[:2500] @ params[0][0]
  np.testing.assert_allclose(
      accuracy, np.mean(np.argmax(logits, axis=1) == labels[:2500]), rtol=1e-6)
  np.testing.assert_allclose(entropy, np.mean(
      optax.softmax_cross_entropy_with_integer_labels(
          jnp.asarray(logits), jnp.asarray(labels[:2500]))), rtol=1e-5)


def test_probes_of_other_sizes_run_the_same_program(traces):
  _probe(_splits())
  assert traces
  count = len(traces)
  others = [_examples(n, 9, width=14) for n in (257, 65, 70)]
  _probe(others, num_classes=7, num_steps=90, seed=5)
  assert len(traces) == count


@pytest.mark.parametrize('count', [1, 2, 17])
def test_few_examples_are_enough(count):
  score = _probe([_examples(count, seed) for seed in range(3)])
  assert np.isfinite(score.conditional_entropy)
  assert 0 <= score.accuracy <= 1


def test_no_examples_are_refused():
  full, empty = _examples(9, 0), Examples(np.zeros((0, 3)), np.zeros(0, int))
  for name, splits in (('training', (empty, full, full)),
                       ('validation', (full, empty, full)),
                       ('test', (full, full, empty))):
    with pytest.raises(ValueError, match=f'{name} examples, got none'):
      _probe(splits)


@pytest.mark.slow
def test_classes_may_be_absent():
  """Class 1 is in no part, class 3 in the test alone."""
  train, validation, test = (
      Examples(e.codes, np.array([0, 2, 4])[e.labels]) for e in _splits())
  known = _probe((train, validation, test), num_classes=20)
  assert known.accuracy > 0.7
  odd = np.where(np.arange(80) < 20, 3, test.labels)
  score = _probe((train, validation, Examples(test.codes, odd)),
                 num_classes=20)
  assert 0.5 < score.accuracy < known.accuracy
  # Expected a little, since frequencies count one more of each class.
  assert known.conditional_entropy < score.conditional_entropy < 5


@pytest.mark.parametrize('num_steps', [1, 19, 39, 1010])
def test_all_steps_are_taken(num_steps):
  codes = np.zeros((16, 16), np.float32)
  codes[:2] = [[1.0] * 16, [-1.0] * 16]
  labels = np.zeros(16, np.int32)
  labels[1] = 1
  examples, rate = Padded(codes, labels, 2), 1e-4 / num_steps
  start = classifier.initial((), 16, np.array([0.5, 0.5]), 0)
  found, accurate = classifier.fit(
      jax.random.key(0), start, examples, examples, num_steps, rate,
      batch_size=64)
  # The gradient hardly changes, so every step of Adam goes as far as the
  # learning rate, and every step improves.
  steps = np.arange(num_steps)
  way = np.sum(rate * 0.5 * (1 + np.cos(np.pi * steps / num_steps)))
  np.testing.assert_allclose(found[0][0][:, 0], way, rtol=5e-4)
  np.testing.assert_array_equal(accurate[0][0], found[0][0])


@pytest.mark.slow
def test_accuracy_is_not_that_of_the_lowest_cross_entropy():
  """Many labels of few examples: a probe too sure of itself is often right."""
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(50, 40))

  def examples(of_each):
    labels = np.repeat(np.arange(50), of_each)
    return Examples(centres[labels] + 2.2 * rng.normal(
        size=(len(labels), 40)), labels)

  splits = examples(3), examples(1), examples(4)
  score = _probe(splits, num_classes=50, num_steps=600, hidden_sizes=(256, 256))
  # The frequencies, which are all the same, are right once in 50 times, and
  # have a cross-entropy of log 50.
  assert score.conditional_entropy < np.log(50) + 1e-3
  assert score.accuracy > 0.1


@pytest.mark.slow
def test_accuracy_is_the_highest_on_validation_examples(monkeypatch, fresh):
  """The measured accuracies are those of every interval, and of the start."""
  train, validation, _ = _splits()
  measured = []
  score = classifier.score

  def spy(params, examples):
    found = score(params, examples)
    jax.debug.callback(lambda loss, accuracy: measured.append(
        (float(accuracy), float(loss))), *found)
    return found

  monkeypatch.setattr(classifier, 'score', spy)
  found = _probe((train, validation, validation))
  jax.effects_barrier()
  # The last two are those of the result.
  tried = measured[:-2]
  assert found.accuracy == pytest.approx(max(a for a, _ in tried))
  assert found.conditional_entropy == pytest.approx(
      min(loss for _, loss in tried))


@pytest.mark.slow
def test_the_best_parameters_are_those_of_the_start_if_learning_harms():
  """Validation has the labels of training swapped."""
  train = _examples(300, 0)
  swapped = Examples(train.codes, 2 - train.labels)
  score = _probe((train, swapped, swapped))
  count = np.bincount(train.labels) + 1
  np.testing.assert_allclose(
      score.conditional_entropy,
      -np.mean(np.log(count / count.sum())[swapped.labels]), rtol=1e-5)


@pytest.mark.slow
def test_training_that_only_harms_ends_early(monkeypatch, fresh):
  """Far fewer steps than asked for are taken, with the same result."""
  drawn = []
  randint = jax.random.randint
  monkeypatch.setattr(jax.random, 'randint', lambda key, *args: (
      jax.debug.callback(lambda: drawn.append(1)), randint(key, *args))[1])
  rng = np.random.default_rng(0)
  noise = [Examples(rng.normal(size=(n, 4)), rng.integers(0, 3, n))
           for n in (60, 60, 60)]
  score = _probe(noise, num_steps=2000)
  early, full = len(drawn), 2000 // 50
  assert early <= full // 2
  monkeypatch.setattr(classifier, '_WORSE', np.inf)
  classifier.fit.clear_cache()
  assert _probe(noise, num_steps=2000) == score
  assert len(drawn) == early + full
