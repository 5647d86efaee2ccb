"""The file of a study: what it may hold, and what is said of mistakes."""

import re
import textwrap

import pytest

from experiments.cli import UserError
from experiments.studies import definition, plan, reading
from tests.helpers import ROOT, studies


def test_a_study_is_read(tmp_path):
  study = reading.read(studies.write(tmp_path))
  assert (study.name, study.title) == ('small', 'Two penalties')
  assert study.seeds == (0, 1)
  assert study.flags.values['hidden_sizes'] == '8'
  assert [s.label for s in study.settings] == ['plain $1 | 2', 'leakage']
  assert [d.name for d in study.data] == ['']
  assert study.columns[0].where == {
      'code': ('style',), 'source': ('mean',), 'k': (1,)}
  assert study.columns[1].heading == 'elbo'
  assert study.figures[0].size == 'kl'


def test_values_become_flags(tmp_path):
  study = reading.read(studies.write(tmp_path, """
[flags]
a = [1, 2.5, 'x']
b = true
c = 1_000
d = 1e-3
[settings.one]
evaluate = {ks = [1, 2]}
"""))
  assert study.flags.values == {
      'a': '1,2.5,x', 'b': 'true', 'c': '1000', 'd': '0.001'}
  assert study.settings[0].evaluate.values == {'ks': '1,2'}
  assert study.settings[0].evaluate.table == 'settings.one.evaluate'


def _with(old, new):
  assert old in studies.TEXT
  return studies.TEXT.replace(old, new, 1)


@pytest.mark.parametrize('text, message', [
    (_with('seeds = [0, 1]', 'seeds = [0, 1'), 'small.toml is not TOML: '),
    (_with('[0, 1]', '[0, 0]'), r'seeds = \[0, 0\] is not a list of different'),
    (_with('[0, 1]', '[]'), 'seeds = '),
    (_with('[0, 1]', '[true]'), 'seeds = '),
    ('title = "x"', r'no settings: add a table \[settings.NAME\]'),
    (_with('title', 'titel'), "unknown key 'titel'"),
    (_with("'Two penalties'", '2'), 'title = 2 is not text'),
    (_with('[settings.plain]', '[settings.a-b]'),
     r"\[settings.a-b\]: the name 'a-b' may contain only letters"),
    (_with('steps = 4', 'seed = 4'), r'\[flags\]: seed is set by the study'),
    (_with('ks = 1', 'ks = {a = 1}'), r'\[evaluate\]: ks = .* not the value'),
    (_with("section = 'elbo'", "section = 'elbos'"),
     r"\[columns.2\]: the evaluation has no section 'elbos'; .*probes"),
    (_with("field = 'accuracy'", ''), r'\[columns.1\]: field is missing'),
    (_with("field = 'accuracy'", "field = 'accuracy'\nreduce = 'median'"),
     "reduce = 'median' is not one of only, max, min, mean"),
    (_with('decimals = 1', 'decimals = true'), 'decimals = True is not an int'),
    (_with("name = 'elbo'", "name = 'leak'"), "the name 'leak' is given twice"),
    (_with("x = 'leak'", "x = 'leek'"),
     r"\[figures.1\]: there is no column 'leek'; the columns are leak, elbo"),
    (_with("y = 'elbo'", "z = 'elbo'"), r'\[figures.1\]: y is missing'),
])
def test_mistakes_name_file_and_table(tmp_path, text, message):
  with pytest.raises(UserError, match=message) as raised:
    reading.read(studies.write(tmp_path, text))
  assert str(raised.value).startswith(str(tmp_path / 'small.toml'))
  assert '\n' not in str(raised.value)


def test_a_study_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match="no study 'x'; give one of .*separation"):
    reading.read('x')
  with pytest.raises(UserError, match='there is no study .*/x.toml'):
    reading.read(str(tmp_path / 'x.toml'))


_DOCS = [*(ROOT / 'docs').glob('*.md'), ROOT / 'README.md']
_EXAMPLES = [
    *re.findall(r'```toml\n(.*?)```', '\n'.join(
        path.read_text(encoding='utf-8') for path in _DOCS), re.S),
    textwrap.dedent(definition.__doc__.partition('\n\n')[2].partition(
        '\n\nRequired are')[0])]


@pytest.mark.parametrize('text', _EXAMPLES)
def test_examples_are_studies(tmp_path, text):
  study, runs = studies.make_runs(tmp_path, text)
  assert len(study.settings) == 2 and study.figures
  assert len(runs) == 3 * 2


def test_the_docs_name_studies_that_exist():
  named = set()
  for path in _DOCS:
    named |= set(re.findall(r'experiments\.study (\w+)[ `\n]',
                            path.read_text(encoding='utf-8')))
  assert named - {'NAME'} and named <= {*reading.names(), 'NAME'}


@pytest.mark.parametrize('name', reading.names())
def test_studies_of_the_package_have_flags_that_exist(name):
  study = reading.read(name)
  variables = dict.fromkeys(('DATA', 'LFW'), '/data')
  runs = plan.make_runs(study, 'runs', variables=variables)
  assert len(runs) == (
      len(study.seeds) * len(study.settings) * len(study.data))
  assert study.about and study.columns and study.figures
  assert '\\' not in study.about  # Continued lines.
