"""What a run's codes hold, in words."""

import pytest

from experiments.evaluation.verdict import verdict
from mlvae_jax.model.factors import ml_vae, parse_factors, vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model

_MODEL = Model(ml_vae(3, 2), (8, 8, 1), Gaussian())
_LABEL = _MODEL.groupings[0]


def _row(code, accuracy, **changes):
  return {'code': code, 'label': _LABEL, 'source': 'mean', 'k': 1,
          'accuracy': accuracy, 'chance': 0.1, 'examples': 500,
          'labels': 10} | changes


@pytest.mark.parametrize('style, amount', [
    (0.08, 'almost none'), (0.12, 'almost none'), (0.2, 'little'),
    (0.4, 'some'), (0.8, 'most'), (0.99, 'nearly all')])
def test_one_sentence_gives_the_numbers_and_one_says_what_they_mean(
    style, amount):
  found = verdict(_MODEL, {'probes': [
      _row('content', 0.2, source='sample'), _row('content', 0.978),
      _row('content', 1.0, k=5), _row('pixels', 0.93), _row('style', style)]})
  assert found == (
      f'A classifier predicts the {_LABEL} of a single image from its code. '
      f'Accuracy: content 97.8 %, style {100 * style:.1f} % (chance 10.0 %). '
      f'Of this information, content holds nearly all, style {amount}.')


def test_with_several_groupings_each_label_has_its_sentences():
  model = Model(parse_factors('who:3:person,lit:2:light,rest:2'), (4,),
                Gaussian())
  rows = [_row(code, accuracy, label=label)
          for label, accuracies in (
              ('person', (0.95, 0.1, 0.12)), ('light', (0.3, 0.99, 0.1)))
          for code, accuracy in zip(('who', 'lit', 'rest'), accuracies)]
  found = verdict(model, {'factors': rows, 'probes': rows[:1]})
  assert 'the person of a single row from its code. Accuracy: who 95.0' in found
  assert 'who holds nearly all, lit almost none, rest almost none.' in found
  assert found.endswith('who holds some, lit nearly all, rest almost none.')


def test_groups_never_seen_are_recognised():
  rows = [{'code': code, 'score': score, 'auc': auc, 'examples': 90,
           'labels': 9}
          for code, score, auc in (
              ('content', 'cosine', 0.91), ('content', 'evidence_ratio', 0.7),
              ('style', 'cosine', 0.53), ('pixels', 'cosine', 0.6))]
  found = verdict(_MODEL, {'verification': rows, 'probes': [
      _row('content', 1.0), _row('style', 1.0)]})
  assert found.endswith(
      'content 0.910, style 0.530 (chance 0.5). Of this information, content '
      'holds most, style little.')


@pytest.mark.parametrize('model, evaluation', [
    (_MODEL, {}), (_MODEL, {'probes': []}),
    (_MODEL, {'probes': [_row('pixels', 0.9)]}),
    (_MODEL, {'probes': [_row('content', 0.9, examples=7)]}),
    (_MODEL, {'probes': [_row('content', 1.0, labels=1)]}),
    (Model(vae(4), (4,), Gaussian()), {'probes': [_row('z', 0.9)]})])
def test_nothing_is_said_where_nothing_is_known(model, evaluation):
  assert not verdict(model, evaluation)
