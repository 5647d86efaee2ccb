"""Flags that several commands share, besides the settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.config import flags
from experiments.config.flags import Path, Setting
from experiments.config.settings import DATA, RUN, SETTINGS

OPTIONS = {
    'workdir': Setting('Folder of the run.', RUN, Path),
    'step': Setting(
        'Checkpoint to use: latest, best (by the ELBO of the validation '
        'images), or the number of a step that was kept.', RUN,
        default='latest'),
    'vae_workdir': Setting(
        'Folder of the run of a VAE on the same data, to compare with.', RUN,
        Path),
    'data_dir': dataclasses.replace(
        SETTINGS['data_dir'],
        text='Folder or file that holds the data set, if it has moved.'),
    'store_dir': dataclasses.replace(
        SETTINGS['store_dir'],
        text='Folder where packed images are kept, if they have moved.'),
    'data_changed': Setting(
        'What to do if the data have changed since the run recorded them: '
        'refuse (stop with an error), or accept the data as they are now and '
        'record them.', DATA, default='refuse', choices=('refuse', 'accept')),
}


def define(*names: str, **changes: Any) -> None:
  """Defines shared flags.

  Args:
    *names: of the flags, as in `OPTIONS`.
    **changes: what these flags declare otherwise, see `flags.Setting`.
  """
  for name in names:
    flags.define(name, dataclasses.replace(OPTIONS[name], **changes))
