"""The explorer in Chromium: it shows what `decode` gives, by mouse and keys."""

import base64
import json

import jax
import numpy as np
import pytest

from experiments import figures, report
from experiments.evaluation import web
from experiments.explorer import block, page
import mlvae_jax as ml
from mlvae_jax.grouping.normal import Normal
from tests.helpers import browser, pictures, runs
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_square_is_dragged_by_the_mouse(explore):
  explored = explore()
  opened, a, b = explored.page, explored.chosen('A'), explored.chosen('B')
  start, stop = explored.codes([a, a]), explored.codes([b, b])

  def between(who, how):
    return {name: start[name] + share * (stop[name] - start[name])
            for name, share in (('who', who), ('how', how))}

  opened.click('.square', 0.5, 0.9)  # The centres of pictures.
  explored.check('.result canvas', between(0.5, 1))
  opened.mouse('Moved', *opened.place_of('.square', 0.1, 0.1))
  explored.check('.result canvas', between(0.5, 1))  # No button is pressed.
  opened.mouse('Pressed', *opened.place_of('.square', 0.1, 0.3))
  x, y = opened.place_of('.square', 0.7, 0.3)
  opened.mouse('Moved', x, y, buttons=1)
  explored.check('.result canvas', between(0.75, 0.25))
  opened.mouse('Moved', x + 2000, y, buttons=1)  # Beyond the edge.
  opened.mouse('Released', x + 2000, y)
  explored.check('.result canvas', between(1, 0.25))
  assert opened.run(
      "document.querySelector('figcaption').textContent") == (
          'Who of B, how 25 % of the way from A to B')


def test_everything_is_done_by_keys(explore):
  explored = explore()
  opened, a, b = explored.page, explored.chosen('A'), explored.chosen('B')
  who, how = explored.model.factors
  opened.run("document.querySelector('input[name=image-A]').focus()")
  opened.press('ArrowRight')  # The next image of A's group.
  assert explored.chosen('A') == a + 1
  assert 'Image A: group g0' in _status(opened)
  opened.press('Tab')
  opened.press(' ')  # The image itself is evidence no more.
  assert '5 of 6 images' in _status(opened)
  opened.run("document.querySelectorAll('.way input')[0].focus()")
  for _ in range(40):
    opened.press('ArrowLeft')
  start = explored.code(who, explored.evidence(who, a + 1)[1:])
  stop, style = explored.codes([b, b])['who'], explored.code(how, [a + 1])
  code = start + 0.6 * (stop - start)
  explored.check('.result canvas', {'who': code, 'how': style})
  opened.run("document.querySelector('.dimension input').focus()")
  opened.press('ArrowRight')
  changed, value = opened.run("""(() => {
      const row = document.querySelector('.dimension');
      return [row.textContent, Number(row.querySelector('input').value)];
  })()""")
  shifted = code.copy()
  shifted[int(changed[4:-1])] = value
  assert np.abs(shifted - code).max() > 0.01
  explored.check('.result canvas', {'who': shifted, 'how': style})
  opened.click('.dimensions button')
  explored.check('.result canvas', {'who': code, 'how': style})


def test_swapped_picture_is_explained_and_opened(explore):
  explored = explore()
  opened = explored.page
  first = np.unique(explored.ids['group'], return_index=True)[1]
  opened.mouse('Moved', *opened.place_of(_cell(2, 1)))
  said = opened.run("document.querySelector('.swaps p').textContent")
  assert said.startswith(
      'Who of the image at the top of the column (group g1), how of the image '
      'at the left of the row (group g2)')
  opened.run("document.querySelector('td[role]').focus()")
  for key in ('ArrowUp', 'ArrowDown', 'ArrowRight', 'ArrowRight', 'Enter'):
    opened.press(key)
  assert [explored.chosen(side) for side in 'AB'] == [first[1], first[2]]
  explored.check('.result canvas', explored.codes([first[2], first[1]]))
  assert _status(opened).startswith(
      'Opened in the square: Who of the image at')


@pytest.mark.slow
def test_evidence_is_added_one_by_one(explore):
  explored = explore()
  opened = explored.page
  count = "document.querySelectorAll('.side.B .evidence input:checked').length"
  opened.run("document.querySelector('.side.B button').click()")
  assert opened.run(count) < 6
  opened.wait(f'{count} === 6')
  assert '6 of 6' in _status(opened)


@pytest.mark.slow
def test_several_factors(explore):
  explored = explore(factors='who:2:group,lamp:3:group,how:2')
  opened, a, b = explored.page, explored.chosen('A'), explored.chosen('B')
  explored.check('.result canvas', explored.codes([b, a, a]))
  opened.run("""(() => {
      const select = document.querySelector('.stage select');
      select.value = 1;
      select.dispatchEvent(new Event('change'));
  })()""")
  assert 'lamp changes' in opened.run(
      "document.querySelector('.lead').textContent")
  opened.click('.square', 0.1, 0.9)
  explored.check('.result canvas', explored.codes([b, a, b]))
  first = np.unique(explored.ids['group'], return_index=True)[1]
  explored.check(_cell(0, 3), explored.codes([first[0], first[3], first[0]]))


@pytest.mark.parametrize('sizes', [[1], [2], [1, 1]])
def test_few_images(explore, sizes):
  explored = explore(sizes=sizes)
  a, b = explored.chosen('A'), explored.chosen('B')
  explored.check('.result canvas', explored.codes([b, a]))


@pytest.mark.parametrize('dark', [False, True])
def test_narrow_window_does_not_scroll_sideways(explore, dark):
  opened = explore(names=['a' * 60, 'b c' * 30, '<b>', 'd']).page
  opened.look(400, 800, dark)
  opened.settle()
  try:
    assert opened.run('document.documentElement.scrollWidth') == 400
    background = opened.run('getComputedStyle(document.body).backgroundColor')
    assert (background == 'rgb(23, 25, 28)') == dark
  finally:
    opened.look()


def test_assistive_technology_knows_what_everything_is(explore):
  named = explore().page.names()
  for role in ('combobox', 'radio', 'checkbox', 'slider', 'button', 'gridcell',
               'columnheader', 'rowheader', 'radiogroup', 'heading', 'image'):
    found = [name for kind, name in named if kind == role]
    assert found and all(found), (role, found, {kind for kind, _ in named})
  for name in ('who, from A to B', 'image 2 of 6, group g0', 'who[0]',
               'image 2 as evidence for the who of A', 'group of image B',
               'Who of the image at the top of the column (group g1), how of '
               'the image at the left of the row (group g0)'):
    assert name in [name for _, name in named], name


@pytest.mark.slow
def test_report_shows_pictures_first(chromium, tmp_path):
  config = runs.config(network='mlp', likelihood='bernoulli')
  runs.untrained(tmp_path, config, (8, 8, 1))
  data = subject_of(sizes=(9, 4, 1, 7), factors='content:3:group,style:2').data
  with pictures.fast():
    figures.draw_all(str(tmp_path), data, only=['swap', 'explorer'])
  path = report.write(str(tmp_path))
  places = """['#explorer', 'img[alt=swap]', '#pictures']
    .map((selector) => document.querySelector(selector))
    .map((found) => found && found.offsetHeight
      ? Math.round(found.getBoundingClientRect().top) : null)"""
  chromium.open(path)
  chromium.settle()
  explorer, swap, heading = chromium.run(places)
  assert explorer < 250 and explorer < heading < swap
  assert not chromium.problems()
  chromium.call('Emulation.setScriptExecutionDisabled', value=True)
  try:
    chromium.open(path)
    explorer, swap, heading = chromium.run(places)
    assert explorer is None and swap < 250 and swap < heading
  finally:
    chromium.call('Emulation.setScriptExecutionDisabled', value=False)


def _status(opened):
  return opened.run("document.querySelector('[role=status]').textContent")
