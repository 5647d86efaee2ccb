"""The heat map of label accuracy by code."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
import numpy as np

from experiments.evaluation.codes import by_code, chance_by
from experiments.evaluation.looks import in_words
from experiments.evaluation.section import Evaluation
from experiments.pictures.sheets import BLUE, Drawing, shorten
from mlvae_jax.model.model import Model

_COLOURS = LinearSegmentedColormap.from_list('predicted', ['#ffffff', BLUE])
_CAPTION = (
    'Label accuracy by code: the test accuracy in % of a classifier that '
    'predicts the labels of each grouping (columns) from the posterior mean '
    'of each code (rows), with every image encoded alone. Colour: accuracy '
    'above chance, from white (chance) to blue (every label is right). Above '
    'the line are the model\'s factors, below it are controls. A frame marks '
    'the label by which a factor is grouped: among the columns with a frame, '
    'the row of a factor should be blue only in the one framed in it, and '
    'white in the others. Labels without a frame belong in the factors that no '
    'group shares.')


def draw_factors(evaluation: Evaluation, model: Model) -> Drawing | None:
  """A heat map of codes and labels, with accuracies above chance.

  Args:
    evaluation: content of evaluation.json.
    model: model whose factors' rows come first.

  Returns:
    The chart of "factors"; None if there are no rows.
  """
  rows = evaluation.get('factors') or []
  table = {code: found for (code, source), found
           in by_code(rows, 'accuracy', 'label').items() if source == 'mean'}
  if not table:
    return None
  own = {f.name: f.grouping for f in model.factors if f.name in table}
  codes = [*own, *(code for code in table if code not in own)]
  labels = chance_by(rows, 'label')
  accuracy = np.array([
      [table[code].get(label, np.nan) for label in labels] for code in codes])
  figure = Figure(
      figsize=(2.2 + 0.85 * len(labels), 0.9 + 0.26 * len(codes)),
      layout='constrained')
  ax = figure.subplots()
  ax.set_title('Label accuracy by code (%)', pad=8)
  _draw_cells(ax, accuracy, np.array(list(labels.values())))
  _name_axes(ax, codes, labels)
  ax.axhline(len(own) - 0.5, color='black', linewidth=1.0, zorder=3)
  for row, grouping in enumerate(own.values()):
    if grouping in labels:
      column = list(labels).index(grouping)
      ax.add_patch(Rectangle(
          (column - 0.48, row - 0.44), 0.96, 0.88, fill=False, linewidth=1.4,
          zorder=3))
  return Drawing(figure, _CAPTION)


def _draw_cells(ax: Axes, accuracy: np.ndarray, chance: np.ndarray) -> None:
  """Draws colours and numbers of accuracies `[codes, labels]`."""
  # Chance is 1 if there is a single label, and then nothing to predict.
  gain = (accuracy - chance) / np.maximum(1 - chance, 1e-9)
  ax.imshow(np.clip(gain, 0, 1), cmap=_COLOURS, vmin=0, vmax=1, aspect='auto')
  for (row, column), value in np.ndenumerate(accuracy):
    if not np.isnan(value):
      ax.text(column, row, f'{100 * value:.1f}', ha='center', va='center',
              color='white' if gain[row, column] > 0.6 else 'black')


def _name_axes(ax: Axes, codes: list[str], labels: dict[str, float]) -> None:
  """Writes names of codes at the left, and of labels with chance on top."""
  ax.set_xticks(
      range(len(labels)), [
          f'{shorten(label)}\nchance {100 * chance:.1f}'
          for label, chance in labels.items()], parse_math=False)
  ax.set_yticks(range(len(codes)), [in_words(code, 24) for code in codes],
                parse_math=False)
  ax.tick_params(length=0, top=True, labeltop=True, bottom=False,
                 labelbottom=False)
  ax.grid(False)
  for edge in range(len(codes)):  # White lines between rows, and columns.
    ax.axhline(edge - 0.5, color='white', linewidth=1.5)
  for edge in range(len(labels)):
    ax.axvline(edge - 0.5, color='white', linewidth=1.5)
  ax.spines[:].set_visible(False)
