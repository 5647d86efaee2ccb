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
    (0.08, 'hardly at all (0 %)'), (0.14, 'hardly at all (4 %)'),
    (0.15, 'a little (6 %)'), (0.23, 'a little (14 %)'),
    (0.39, 'a little (32 %)'),
    (0.41, 'in part (34 %)'), (0.69, 'in part (66 %)'), (0.71, 'well (68 %)'),
    (0.90, 'well (89 %)'), (0.92, 'nearly perfectly (91 %)'),
    (1.0, 'nearly perfectly (100 %)')])
def test_one_sentence_says_what_codes_reveal_and_one_gives_the_scores(
    style, amount):
  found = verdict(_MODEL, {'probes': [
      _row('content', 0.2, source='sample'), _row('content', 0.978),
      _row('content', 1.0, k=5), _row('pixels', 0.93), _row('style', style)]})
  assert found == (
      f'The {_LABEL} of a single image can be recognised from content nearly '
      f'perfectly (98 %), from style {amount}. Here 0 % is chance and 100 % a '
      'perfect score: a classifier\'s accuracy is 97.8 % with '
      f'content, {100 * style:.1f} % with style, and 10.0 % by chance.')


def test_several_groupings_share_both_sentences():
  model = Model(parse_factors('who:3:person,lit:2:light,rest:2'), (4,),
                Gaussian())
  rows = [_row(code, accuracy, label=label)
          for label, accuracies in (
              ('person', (0.95, 0.1, 0.12)), ('light', (0.3, 0.99, 0.1)))
          for code, accuracy in zip(('who', 'lit', 'rest'), accuracies)]
  found = verdict(model, {'factors': rows, 'probes': rows[:1]})
  assert found == (
      'The person of a single row can be recognised from who nearly perfectly '
      '(94 %), from lit hardly at all (0 %), from rest hardly at all (2 %); '
      'its light from who a little (22 %), from lit nearly perfectly (99 %), '
      'from rest hardly at all (0 %). Here 0 % is chance and 100 % a perfect '
      'score: a classifier\'s accuracy on the person is 95.0 % with who, '
      '10.0 % with lit, 12.0 % with rest, and 10.0 % by chance; on the light, '
      'it is 30.0 % with who, 99.0 % with lit, 10.0 % with rest, and 10.0 % by '
      'chance.')


def test_groups_never_seen_are_recognised():
  rows = [{'code': code, 'score': score, 'auc': auc, 'examples': 90,
           'labels': 9}
          for code, score, auc in (
              ('content', 'cosine', 0.91), ('content', 'evidence_ratio', 0.7),
              ('style', 'cosine', 0.53), ('pixels', 'cosine', 0.6))]
  found = verdict(_MODEL, {'verification': rows, 'probes': [
      _row('content', 1.0), _row('style', 1.0)]})
  assert found == (
      f'The {_LABEL} of a single image of a group never seen in training can '
      'be recognised from content well (82 %), from style a little (6 %). '
      'Here 0 % is chance and 100 % a perfect score: the area under the ROC '
      'curve, when the codes of two images are compared, is 0.910 with '
      'content, 0.530 with style, and 0.5 by chance.')


@pytest.mark.parametrize('model, evaluation', [
    (_MODEL, {}), (_MODEL, {'probes': []}),
    (_MODEL, {'probes': [_row('pixels', 0.9)]}),
    (_MODEL, {'probes': [_row('content', 0.9, examples=7)]}),
    (_MODEL, {'probes': [_row('content', 1.0, labels=1)]}),
    (Model(vae(4), (4,), Gaussian()), {'probes': [_row('z', 0.9)]})])
def test_nothing_is_said_where_nothing_is_known(model, evaluation):
  assert not verdict(model, evaluation)
