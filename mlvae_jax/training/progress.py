"""A progress bar for the terminal or a notebook, by tqdm if it is installed."""

from __future__ import annotations

from typing import Any


class Progress:
  """A callback that shows steps, ELBO and speed; a context that closes it."""

  def __init__(self, num_steps: int, step: int = 0, *, is_shown: bool = True):
    """Shows the bar.

    Args:
      num_steps: number of steps of the whole run.
      step: number of steps taken already.
      is_shown: whether to show anything.

    Raises:
      ImportError: where tqdm is not installed.
    """
    try:
      import tqdm.auto  # The only package that just the bar needs.
    except ImportError as error:
      raise ImportError(
          'the progress bar needs tqdm: pip install tqdm, or leave progress '
          'out') from error
    self._bar = tqdm.auto.tqdm(
        total=num_steps, initial=step, unit='step', desc='training',
        dynamic_ncols=True, disable=not is_shown)
    self._bar.set_postfix_str('compiling')  # Until the first record.
    self._step = step

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *_) -> None:
    self._bar.close()

  def __call__(self, step: int, record: dict[str, Any]) -> None:
    """Moves on to a step."""
    self._bar.update(step - self._step)
    self._step = step
    if record['split'] == 'train':
      self._bar.set_postfix_str(
          f'ELBO {record["elbo"]:.1f}, {record["images_per_second"]:.0f} '
          'rows/s', refresh=False)
