"""Code in the docs does what the text says."""

import re

import numpy as np

from tests.helpers import ROOT


def _run(page, heading):
  """Names that the Python under a heading defines."""
  text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
  section = text.partition(f'## {heading}\n')[2].partition('\n## ')[0]
  found = {}
  exec('\n'.join(re.findall(r'```python\n(.*?)```', section, re.S)), found)
  return found


def test_counts_of_cells():
  found = _run('models.md', 'Likelihoods')
  for name in ('expected', 'observed', 'shown'):
    assert found[name].shape == (20, 50)
    np.testing.assert_allclose(found[name].sum(1), 10_000, rtol=1e-4)
