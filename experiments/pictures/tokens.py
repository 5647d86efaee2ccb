"""Sample sentences of a model of tokens: as they are, decoded, swapped, new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import textwrap
from typing import NamedTuple

import jax
from matplotlib.figure import Figure
import numpy as np

from experiments.pictures.sheets import (
    BLUE,
    GREEN,
    GREY,
    RED,
    Drawing,
    drawable,
    shorten,
    shortened,
)
from experiments.pictures.shown import choose_images, infer_codes
from experiments.pictures.subject import SEED, Subject
from experiments.pictures.swaps import can_swap
import mlvae_jax
from mlvae_jax.model.likelihoods.categorical import Categorical

_NUM_ROWS, _NUM_SWAPPED, _NUM_SAMPLES = 6, 3, 6
_WIDTH, _MAX_LINES = 92, 2  # Characters of a line, and lines of a sentence.
_FONT = 'DejaVu Sans Mono'
_LINE_INCHES = 0.125
# Compiled as a whole: op by op, drawing a run would compile for seconds.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)
_swap = jax.jit(mlvae_jax.swap, static_argnums=0, static_argnames='factor')
_generate = jax.jit(mlvae_jax.generate, static_argnums=(0, 4))


class _Line(NamedTuple):
  """A sentence with what it is; a heading has no sentence."""

  label: str
  text: str | None
  colour: str


def sentences(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """A table of sentences; none if the observations are not tokens."""
  if not isinstance(subject.model.likelihood, Categorical):
    return
  lines = [*_reconstructed(subject), *_swapped(subject), *_samples(subject)]
  yield 'sentences', Drawing(_draw(lines), _describe(subject))


def sentence(tokens: np.ndarray, vocabulary: Sequence[str] | None) -> str:
  """Tokens as text.

  Args:
    tokens: `[L]` ints; those below 0 are padding, which is left out.
    vocabulary: names of the tokens, or None to show their numbers. A token
      that it does not name is shown as a number.

  Returns:
    The text; words and numbers are separated by spaces, letters are not.
  """
  known = vocabulary or ()
  names = [known[t] if t < len(known) else str(t)
           for t in np.ravel(tokens).tolist() if t >= 0]
  letters = bool(known) and all(len(name) == 1 for name in known)
  return ('' if letters else ' ').join(names)


def _reconstructed(subject: Subject) -> Iterator[_Line]:
  """Test rows with their reconstructions, by both strategies."""
  rows, groups = choose_images(subject, _NUM_ROWS), subject.groups
  originals = np.asarray(subject.images.x[rows])
  versions = [('', originals, GREEN)]
  for strategy, colour in ((1, BLUE), (2, RED))[
      :2 if subject.model.grouped else 1]:
    codes = infer_codes(subject._replace(strategy=strategy), rows)
    versions.append((
        f'  strategy {strategy}' if subject.model.grouped
        else '  reconstruction',
        # No model of tokens knows where a sentence ends: cut as the original.
        np.where(originals < 0, -1, _shown(subject, codes)), colour))
  yield _Line('Test rows and their reconstructions', None, GREY)
  for i, row in enumerate(rows):
    for label, tokens, colour in versions:
      yield _Line(label or shorten(groups.name(groups.ids[row])),
                  _text(subject, tokens[i]), colour)


def _swapped(subject: Subject) -> Iterator[_Line]:
  """The factor's code of some rows with the other codes of others."""
  if not can_swap(subject.model):
    return
  rows, groups = choose_images(subject, _NUM_SWAPPED), subject.groups
  codes = infer_codes(subject, rows)
  grid = subject.model.likelihood.shown(_swap(
      subject.model, subject.params, codes, codes, factor=subject.factor))
  names = [shorten(groups.name(groups.ids[row])) for row in rows]
  for i, row in enumerate(rows):
    yield _Line(f'Swapped: {subject.others} of a row of {names[i]}', None, GREY)
    yield _Line(names[i], _text(subject, subject.images.x[row]), GREEN)
    for j, name in enumerate(names):
      yield _Line(f'  {subject.factor} of {name}',
                  _text(subject, np.asarray(grid[i, j])), RED)


def _samples(subject: Subject) -> Iterator[_Line]:
  made = subject.model.likelihood.shown(_generate(
      subject.model, subject.params, {}, jax.random.key(SEED), _NUM_SAMPLES))
  yield _Line('Codes drawn from the prior', None, GREY)
  for i, tokens in enumerate(np.asarray(made[0]), start=1):
    yield _Line(f'{i}', _text(subject, tokens), RED)


def _shown(subject: Subject, codes: dict[str, np.ndarray]) -> np.ndarray:
  """The most probable tokens, `[N, L]`."""
  return np.asarray(subject.model.likelihood.shown(
      _decode(subject.model, subject.params, codes)))


def _text(subject: Subject, tokens: np.ndarray) -> str:
  """A sentence in lines that fit."""
  text = drawable(sentence(tokens, subject.data.vocabulary), _FONT)
  lines = textwrap.wrap(text, _WIDTH, drop_whitespace=False)
  rest = shortened(''.join(lines[_MAX_LINES - 1:]), _WIDTH)
  return '\n'.join([*lines[:_MAX_LINES - 1], rest]).rstrip()


def _draw(lines: Sequence[_Line]) -> Figure:
  """Labels on the left, sentences on the right, from top to bottom."""
  heights = [1.6 if line.text is None else 1.2 * (line.text.count('\n') + 1)
             for line in lines]
  total = sum(heights) + 0.5
  figure = Figure(figsize=(7.2, _LINE_INCHES * total))
  ax = figure.add_axes((0, 0, 1, 1))
  ax.set(xlim=(0, 1), ylim=(total, 0))
  ax.axis('off')
  y = 0.0
  for line, height in zip(lines, heights):
    look = {'va': 'bottom' if line.text is None else 'top',
            'parse_math': False}
    if line.text is None:
      ax.text(0.01, y + height - 0.1, line.label, fontweight='bold', **look)
    else:
      ax.text(0.01, y, line.label, color=GREY, **look)
      ax.text(0.19, y, line.text, color=line.colour, family=_FONT,
              **look)
    y += height
  return figure


def _describe(subject: Subject) -> str:
  model, factor = subject.model, subject.factor
  names = ('' if subject.data.vocabulary else ' Tokens are shown as numbers; '
           'an array "vocabulary" in the .npz gives them names.')
  if model.grouped:
    how = ('from the row alone (blue, strategy 1) and with the evidence of '
           'other rows of its group in the codes that the group shares (red, '
           'strategy 2)')
  else:
    how = '(blue)'
  swapped = (
      f' Below, sentences decoded from the {subject.others} of one test row '
      f'and the {factor} of another (strategy 2).' if can_swap(model) else '')
  return (
      'Sentences: test rows (green) and their reconstructions from posterior '
      f'means {how}, cut where the row ends.{swapped} Last, sentences decoded '
      'from codes drawn from the prior. Every decoded sentence shows the most '
      f'probable token at each position.{names}{subject.given_words}')
