"""Commands that train, evaluate and draw; they need the extra [experiments]."""

from importlib import util

_NEEDED = ('absl', 'matplotlib', 'mlxtend', 'PIL', 'sklearn', 'tensorboardX',
           'tensorflow_datasets', 'tqdm')
_missing = [name for name in _NEEDED if util.find_spec(name) is None]
if _missing:
  # With the name of this package, `python -m` makes one line of it.
  raise ImportError(
      f'experiments need {", ".join(_missing)}; install them with: '
      'pip install -e \'.[experiments]\'', name=__name__)
