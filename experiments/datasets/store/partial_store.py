"""A partial store: decoded images on their way into a packed store.

It is a folder with a file of slots, to which images are appended in the order
of the source, and with the state of the last save: the position in the source,
and an index of the groups of the images. After a kill, everything that was
appended since then is simply done again.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import time
from typing import Any
import zipfile

import numpy as np

from experiments.datasets.sources import records
from experiments.datasets.sources.records import Record
from experiments.datasets.store import packed
from experiments.datasets.store.slots import SlotGroups, SlotRows
from mlvae_jax.data.grouped import Labels

_SAVE_SECONDS = 30.0
_SLOTS, _STATE = 'spill.bin', 'state.npz'
# Names of the arrays `_of_slots` in the file of the state.
_OF_SLOTS = ('ranks', 'ages', 'grey', 'name_sizes')


class PartialStore:
  """The images so far, each in a slot, and the index of their groups.

  If only the best ranks of a group are kept, a better image takes the slot of
  the worst.

  Attributes:
    image_size: height and width in pixels.
    position: position at which to resume reading the source.
    num_done: finished part of the source, in its units.
    num_bad: number of images that cannot be used.
  """

  def __init__(self, folder: str, settings: dict[str, Any]):
    """Opens a partial store, with the state that an earlier try saved.

    Args:
      folder: folder of the partial store; created if it is missing.
      settings: settings of the store: image_size, top_k, perhaps groupings,
        and whatever else distinguishes it.
    """
    self._folder, self._settings = folder, settings
    self._top_k = settings['top_k']
    self.image_size = settings['image_size']
    self._shape = (self.image_size, self.image_size, 3)
    # A slot of the file holds the pixels, followed by the name.
    self._image_bytes = int(np.prod(self._shape))
    self._slot_bytes = self._image_bytes + records.MAX_NAME_BYTES
    os.makedirs(folder, exist_ok=True)
    self.position = None
    self.num_done = self.num_bad = self._num_bad_bytes = 0
    self._groupings = [
        SlotGroups() for _ in settings.get('groupings') or ['group']]
    # Per slot: rank and age of the image, whether it is grey, length of its
    # name. Arrays, because lists of millions of ints would take GBs.
    self._ranks, self._ages = array.array('q'), array.array('q')
    self._grey, self._name_sizes = array.array('b'), array.array('B')
    self._restore()
    # Slots of each group, the oldest image first; needed only with a limit.
    self._slots: dict[int, list[int]] = {}
    if self._top_k:
      for slot in np.argsort(self._ages, kind='stable'):
        self._slots.setdefault(
            self._groupings[0].ids[slot], []).append(int(slot))
    self._file = open(os.path.join(folder, _SLOTS), 'r+b')
    self._bad_file = open(os.path.join(folder, packed.BAD_IMAGES), 'r+b')
    # Everything after the last save is done again.
    self._file.truncate(self.num_rows * self._slot_bytes)
    self._bad_file.truncate(self._num_bad_bytes)
    self._bad_file.seek(self._num_bad_bytes)
    self._saved, self._pause = time.monotonic(), _SAVE_SECONDS

  def __enter__(self) -> PartialStore:
    return self

  def __exit__(self, *_) -> None:
    with self._file, self._bad_file:  # Closes both, even if one fails.
      pass

  @property
  def num_rows(self) -> int:
    """Number of images so far."""
    return len(self._ranks)

  def wants(self, record: Record) -> bool:
    """Whether an image of this rank would be kept."""
    return self._place(record, self._slots_of(record)) is not None

  def add(self, record: Record, image: np.ndarray) -> None:
    """Keeps an image that is wanted, in its place.

    Args:
      record: the image's record.
      image: `[S, S, C]` uint8, C = 1 if grey, else 3.
    """
    slots = self._slots_of(record)
    number = self._place(record, slots)
    ids = [grouping.id_of(name) for grouping, name in zip(
        self._groupings, (record.group, *record.others))]
    if number < len(slots):
      slot = slots.pop(number)
    else:
      slot = self.num_rows
      for values in (*self._of_slots, *(
          grouping.ids for grouping in self._groupings)):
        values.append(0)
    if self._top_k:
      self._slots.setdefault(ids[0], []).append(slot)
    for grouping, i in zip(self._groupings, ids):
      grouping.ids[slot] = i
    self._ranks[slot], self._ages[slot] = record.rank, self.num_done
    self._grey[slot] = image.shape[-1] == 1
    name = records.row_name(record.name)
    self._name_sizes[slot] = len(name)
    self._file.seek(slot * self._slot_bytes)
    self._file.write(np.broadcast_to(image, self._shape).tobytes())
    self._file.write(name.ljust(records.MAX_NAME_BYTES, b'\0'))

  def add_bad(self, record: Record, problem: str) -> None:
    """Lists an image that cannot be used."""
    self.num_bad += 1
    self._bad_file.write(json.dumps({
        'where': record.where, 'group': record.group, 'problem': problem
    }).encode() + b'\n')

  def done(self, record: Record) -> None:
    """Marks a record as done; saves from time to time."""
    self.position = record.position
    self.num_done += record.size
    if time.monotonic() - self._saved > self._pause:
      self.save()

  def save(self) -> None:
    """Makes everything up to here survive a kill."""
    start = time.monotonic()
    # First the slots, then the state that refers to them.
    for file in (self._file, self._bad_file):
      file.flush()
      os.fsync(file.fileno())
    state = {
        'settings': self._settings, 'position': self.position,
        'num_done': self.num_done, 'num_bad': self.num_bad,
        'num_bad_bytes': self._bad_file.tell(),
        'names': [grouping.names for grouping in self._groupings]}
    path = os.path.join(self._folder, _STATE)
    with open(f'{path}.new', 'wb') as file:
      np.savez(
          file, state=np.frombuffer(json.dumps(state).encode(), np.uint8),
          ids=[grouping.ids for grouping in self._groupings],
          **dict(zip(_OF_SLOTS, self._of_slots)))
      file.flush()
      os.fsync(file.fileno())
    os.replace(f'{path}.new', path)
    self._saved = time.monotonic()
    # Saving a long index takes time: spend at most a twentieth on it.
    self._pause = max(_SAVE_SECONDS, 20 * (self._saved - start))

  def write_store(self) -> None:
    """Writes the store of all images, sorted by group."""
    self.save()
    # Only at the end is it known whether all images are grey.
    num_channels = 1 if all(self._grey) else 3
    images = SlotRows(
        self._file, self._slot_bytes, 0, np.dtype(np.uint8),
        (self.num_rows, *self._shape), num_channels)
    names = SlotRows(
        self._file, self._slot_bytes, self._image_bytes,
        np.dtype(f'S{max(self._name_sizes) or 1}'), (self.num_rows,))
    # Images of equal rank stay in the order of the source, whatever slots they
    # took.
    place = np.empty(self.num_rows, np.int64)
    place[np.lexsort((self._ages, self._ranks))] = np.arange(self.num_rows)
    first, *others = (
        Labels(np.asarray(grouping.ids), grouping.names)
        for grouping in self._groupings)
    packed.write_store(
        self._folder, images, names, first.ids, place, first.names,
        {**self._settings, 'num_bad_images': self.num_bad}, others)

  @property
  def _of_slots(self) -> tuple[array.array, ...]:
    return self._ranks, self._ages, self._grey, self._name_sizes

  def _slots_of(self, record: Record) -> list[int]:
    """The slots of a record's group, oldest first; [] without a limit."""
    if not self._top_k:
      return []
    return self._slots.get(self._groupings[0].find(record.group), [])

  def _place(self, record: Record, slots: list[int]) -> int | None:
    return records.place(
        [self._ranks[slot] for slot in slots], record.rank, self._top_k)

  def _restore(self) -> None:
    """Reads the state of an earlier try; discards one of other settings."""
    try:
      with np.load(os.path.join(self._folder, _STATE)) as saved:
        state = json.loads(saved['state'].tobytes())
        ids = saved['ids']
        slots = [saved[name] for name in _OF_SLOTS]
      num_bytes = os.path.getsize(os.path.join(self._folder, _SLOTS))
      is_ours = (state['settings'] == self._settings
                 and 0 < len(slots[0]) * self._slot_bytes <= num_bytes)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
      is_ours = False
    if not is_ours:
      for name in (_SLOTS, packed.BAD_IMAGES):
        open(os.path.join(self._folder, name), 'wb').close()
      remove(self._folder, packed.MANIFEST)
      return
    self.position, self.num_done = state['position'], state['num_done']
    self.num_bad, self._num_bad_bytes = state['num_bad'], state['num_bad_bytes']
    for values, found in zip(self._of_slots, slots):
      values.frombytes(found.tobytes())
    for grouping, names, found in zip(self._groupings, state['names'], ids):
      grouping.restore(names, found)


def clean_up(folder: str) -> None:
  """Removes the files that are not needed once the store is written."""
  remove(folder, _SLOTS, _STATE)


def remove(folder: str, *names: str) -> None:
  """Removes files of a folder, if they exist."""
  for name in names:
    with contextlib.suppress(FileNotFoundError):
      os.remove(os.path.join(folder, name))
