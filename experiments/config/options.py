"""Flags that several commands share, besides the settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl.flags import FLAGS, FlagValues

from experiments.config import flags
from experiments.config.flags import Path, Setting
from experiments.config.settings import DATA, RUN, SETTINGS

OPTIONS = {
    'workdir': Setting('Folder of the run.', RUN, Path),
    'step': Setting(
        'Checkpoint to use: latest, best (the one with the highest validation '
        'ELBO), or the number of a step whose checkpoint was kept.', RUN,
        default='latest'),
    'vae_workdir': Setting(
        'Folder of a run of a VAE on the same data, used for comparison.', RUN,
        Path),
    # These two override what the run recorded, rather than declare it.
    'data_dir': dataclasses.replace(
        SETTINGS['data_dir'],
        text='Folder or file that holds the data set, if it has moved.'),
    'store_dir': dataclasses.replace(
        SETTINGS['store_dir'],
        text='Folder where packed images are kept, if it has moved.'),
    'data_changed': Setting(
        'Response to data that have changed since the run recorded them: '
        'refuse stops with an error, accept takes the data as they are now and '
        'records them.', DATA, default='refuse', choices=('refuse', 'accept')),
}


def define(*names: str, flag_values: FlagValues = FLAGS,
           **changes: Any) -> None:
  """Defines shared flags.

  Args:
    *names: names of the flags, as in `OPTIONS`.
    flag_values: registry in which to define them.
    **changes: attributes of `flags.Setting` to override for these flags.
  """
  for name in names:
    flags.define(
        name, dataclasses.replace(OPTIONS[name], **changes), flag_values)
