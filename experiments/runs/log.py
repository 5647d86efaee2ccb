"""TensorBoard events of a run."""

from __future__ import annotations

from typing import Any

from mlvae_jax.training.history import flatten


class Events:
  """A callback that writes the records of a run as TensorBoard events."""

  def __init__(self, workdir: str, step: int):
    """Opens a file of events.

    Args:
      workdir: folder of the run.
      step: step that the run resumes at; later events are hidden.
    """
    import tensorboardX  # Slow to import.

    self._events = tensorboardX.SummaryWriter(
        workdir, purge_step=step + 1 if step else None)

  def __call__(self, step: int, record: dict[str, Any]) -> None:
    """Writes one record."""
    for name, value in flatten(record).items():
      self._events.add_scalar(name, value, step)

  def flush(self) -> None:
    """Hands everything written so far to the operating system."""
    self._events.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._events.close()
