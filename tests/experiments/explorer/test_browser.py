"""The explorer in Chromium: it shows what `decode` gives, by mouse and keys."""

import base64
import json

import jax
import numpy as np
import pytest

from experiments.evaluation import web
from experiments.explorer import block, page
import mlvae_jax as ml
from mlvae_jax.grouping.normal import Normal
from tests.helpers import browser
from tests.helpers.explored import subject_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason='no Chromium')]
_decode = jax.jit(ml.decode, static_argnums=0)
_ACTIVATIONS = ('tanh', 'relu', 'gelu', 'silu', 'softplus')


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
  with browser.open_browser(tmp_path_factory.mktemp('chromium')) as opened:
    opened.look()
    yield opened


class _Explored:
  """A page that is open, and what it should show."""

  def __init__(self, chromium, subject, folder):
    self.page, self.model, self.params = (
        chromium, subject.model, subject.params)
    (folder / 'figures').mkdir()
    block.write(subject, str(folder / 'figures'))
    parts = page.read(str(folder))
    path = folder / 'report.html'
    path.write_text(web.page('Test', [
        parts.body, '<div id="lead">figure</div><h2 id="pictures">Pictures</h2>'
    ], parts.script, parts.style), encoding='utf-8')
    chromium.open(path)
    chromium.settle()
    data = json.loads((folder / 'figures' / block.FILE).read_text())
    self.ids = {name: np.array(own['ids'])
                for name, own in data['groupings'].items()}
    self.q = {f['name']: Normal(*(
        np.frombuffer(base64.b64decode(f[part]), '<f4').reshape(-1, f['dim'])
        for part in ('mean', 'logvar'))) for f in data['factors']}

  def evidence(self, factor, image, count=8):
    """An image and the others of its group that count as evidence."""
    if not factor.grouping:
      return [image]
    ids = self.ids[factor.grouping]
    return [image, *(i for i in range(len(ids)) if i != image
                     and ids[i] == ids[image])][:count]

  def code(self, factor, rows):
    """The code of a factor, given the images that are evidence."""
    q = self.q[factor.name]
    if not factor.grouping:
      return np.asarray(q.mean[rows[0]])
    q = Normal(q.mean[np.array(rows, int)], q.logvar[np.array(rows, int)])
    return np.asarray(self.model.group_posterior.combine(
        q, np.zeros(len(rows), int), 1).mean[0])

  def codes(self, images):
    """Codes by factor, of an image for each factor."""
    return {f.name: self.code(f, self.evidence(f, image))
            for f, image in zip(self.model.factors, images)}

  def chosen(self, side):
    return int(self.page.run(
        f'document.querySelector("input[name=image-{side}]:checked").value'))

  def check(self, selector, codes):
    """Checks that a canvas shows what `decode` gives, within 2/255."""
    self.page.settle()
    shown = np.array(self.page.run(f"""(() => {{
        const canvas = document.querySelector({json.dumps(selector)});
        return [...canvas.getContext('2d').getImageData(
          0, 0, canvas.width, canvas.height).data];
    }})()"""))
    height, width, channels = self.model.observation_shape
    shown = shown.reshape(height, width, 4)[..., :channels]
    mean = np.asarray(_decode(self.model, self.params, codes))
    assert np.ptp(mean) > 0.05  # There is something to see.
    assert np.abs(np.clip(mean, 0, 1) * 255 - shown).max() <= 2.0
    assert not self.page.problems()


def _cell(row, column):
  """The selector of a picture of the grid of swapped codes."""
  return (f'.swaps tbody tr:nth-of-type({row + 1}) '
          f'td:nth-of-type({column + 1}) canvas')


@pytest.fixture
def explore(chromium, tmp_path):
  return lambda **changes: _Explored(chromium, subject_of(**changes), tmp_path)


@pytest.mark.parametrize('parts', [
    *({'network': ml.MLP((16, 8), activation)} for activation in _ACTIVATIONS),
    {'network': ml.MLP(())},
    {'network': ml.Conv((4, 8, 6), (16,), 'silu', 2), 'shape': (16, 8, 3),
     'likelihood': ml.LearnedGaussian()},
    {'network': ml.Conv((5,), (), 'relu'), 'shape': (6, 8, 1)},
    {'likelihood': ml.Gaussian(), 'shape': (4, 4, 3)},
    {'likelihood': ml.Laplace()}], ids=str)
def test_pictures_are_those_of_decode(explore, parts):
  explored = explore(**parts)
  a, b = explored.chosen('A'), explored.chosen('B')
  assert explored.ids['group'][[a, b]].tolist() == [0, 3]
  # At first the content of B with the style of A.
  explored.check('.result canvas', explored.codes([b, a]))
  explored.check('.square canvas:nth-of-type(1)', explored.codes([a, a]))
  explored.check('.square canvas:nth-of-type(25)', explored.codes([b, b]))
  start, stop = explored.codes([a, a]), explored.codes([b, b])
  explored.check('.square canvas:nth-of-type(8)', {
      'who': start['who'] + 0.5 * (stop['who'] - start['who']),
      'how': start['how'] + 0.25 * (stop['how'] - start['how'])})
  first = np.unique(explored.ids['group'], return_index=True)[1]
  for row, column in ((0, 0), (2, 1), (1, 3)):
    explored.check(_cell(row, column),
                   explored.codes([first[column], first[row]]))


@pytest.mark.parametrize('kind', [
    ml.grouping.group_posteriors.GROUP_POSTERIORS[name] for name in (
        'product', 'prior_product', 'harmonic', 'moments', 'mixture',
        'adaptive')], ids=lambda kind: kind.__name__)
def test_evidence_is_combined_as_by_the_model(explore, kind):
  explored = explore(group_posterior=kind())
  who, how = explored.model.factors
  a = explored.chosen('A')
  opened = explored.page
  opened.run("document.querySelector('.way input').focus()")
  for _ in range(100):  # To the content of A.
    opened.press('ArrowLeft')
  rows = explored.evidence(who, a)
  for left in ((0, 1, 2, 3, 4, 5), (0, 1, 2, 4, 5), (1, 4, 5), (4,), ()):
    for place in range(6):
      opened.run(f"""(() => {{
          const input = document.querySelectorAll(
            '.side.A .evidence input')[{place}];
          if (input.checked !== {str(place in left).lower()}) input.click();
      }})()""")
    codes = {'who': explored.code(who, [rows[i] for i in left]),
             'how': explored.code(how, [a])}
    explored.check('.result canvas', codes)
    said = opened.run("document.querySelector('[role=status]').textContent")
    if len(left) < 6:
      assert said.startswith(
          f'Evidence for the who of A: {len(left)} of 6 images'), said
    if not left:
      assert 'typical standard deviation 1.00' in said
