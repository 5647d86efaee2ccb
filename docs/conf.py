"""Settings of the site: `sphinx-build -W --keep-going docs build/site`.

Nothing here or in the pages needs a network, neither to build nor to read.
"""

import os
import pathlib
import sys

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
import matplotlib.font_manager  # noqa: F401  (Lists fonts, once for all pages.)
from numpy.typing import ArrayLike
from sphinx.util.typing import stringify_annotation

# The site is that of this checkout, whatever is installed. The commands of
# tutorials run with the same Python.
_ROOT = str(pathlib.Path(__file__).parents[1])
sys.path.insert(0, _ROOT)
for _name, _path in (('PATH', os.path.dirname(sys.executable)),
                     ('PYTHONPATH', _ROOT)):
  os.environ[_name] = os.pathsep.join(
      filter(None, [_path, os.environ.get(_name)]))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

project = 'mlvae_jax'
author = 'the authors of mlvae_jax'
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
highlight_language = 'bash'  # Blocks without a language are commands.
smartquotes = False  # They would make a dash of the -- of flags.

html_theme = 'sphinx_book_theme'
html_title = 'mlvae_jax'
html_static_path = ['_static']
html_css_files = ['site.css']
html_theme_options = {
    'navbar_persistent': [],  # The search field is in the sidebar.
    'use_download_button': False, 'use_fullscreen_button': False}
html_math_renderer = 'mathml'

myst_enable_extensions = ['attrs_inline', 'colon_fence', 'dollarmath']
myst_heading_anchors = 3

nb_execution_mode = 'force'
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = 'warn'  # Which -W makes an error.
nb_ipywidgets_js = {}  # No page has widgets, whose scripts come from a network.

autodoc_member_order = 'bysource'
default_role = 'code'
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 80


def _inline(translator, node):
  translator.body.append(tex2mathml(node.astext()))
  raise SkipNode


def _block(translator, node):
  translator.body.append(
      f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
  raise SkipNode


def _shorten(app, what, name, thing, options, signature, returned):
  """Names the type of arguments that become arrays, a union of many."""
  long = stringify_annotation(ArrayLike, 'smart')
  return signature and signature.replace(long, 'ArrayLike'), returned


def setup(app):
  """Adds formulas as MathML, which browsers draw without a script."""
  app.add_html_math_renderer('mathml', (_inline, None), (_block, None))
  app.connect('autodoc-process-signature', _shorten)
