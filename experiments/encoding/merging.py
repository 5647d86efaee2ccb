"""Codes of several parts put together, and codes of some images taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import json
import os
from typing import Any

import numpy as np

from experiments.cli import UserError
from experiments.encoding import evidence, files, shards
from experiments.encoding.evidence import Evidence
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.model import registry

# What has to be the same in all folders.
_SAME = ('model', 'group_posterior', 'factors', 'format')


def merge(merged: Sequence[str], removed: Sequence[str], output: str
          ) -> list[str]:
  """Puts codes of several parts together.

  Args:
    merged: folders whose codes are put together, at least one.
    removed: folders whose codes are taken away from these.
    output: folder to write, completely or not at all.

  Returns:
    The paths of the files.

  Raises:
    UserError: when the codes are not of one model, images would count twice,
      or a folder cannot be used.
  """
  output = os.path.abspath(output)
  shards.check_output(output)
  about = _merged_about(merged, removed)
  files.check_format(about['format'])
  shards.make_parent(output)
  with shards.open_shards(output, about) as done:
    _write_merged(done.output_folder(), merged, removed, about)
    done.finish(output)
  return shards.paths(output)


def read_about(folder: str) -> dict[str, Any]:
  """What about.json of a folder of codes says; a UserError without one."""
  path = os.path.join(folder, files.ABOUT_FILE)
  try:
    with open(path, encoding='utf-8') as file:
      about = json.load(file)
    if not {*_SAME, 'parts', 'num_images'} <= set(about):
      raise ValueError('entries are missing')
    return about
  except FileNotFoundError as error:
    raise UserError(
        f'{folder} has no {files.ABOUT_FILE}; give a folder that '
        'experiments.encode wrote') from error
  except (ValueError, TypeError) as error:
    raise UserError(f'{path} is damaged ({error}); encode again') from error


def _merged_about(merged: Sequence[str], removed: Sequence[str]
                 ) -> dict[str, Any]:
  """What about.json says of codes that are put together.

  Args:
    merged: folders whose codes are put together, at least one.
    removed: folders whose codes are taken away.

  Returns:
    Plain JSON.

  Raises:
    UserError: when the codes are not of one model, or would count twice.
  """
  abouts = {folder: read_about(folder) for folder in (*merged, *removed)}
  first = abouts[merged[0]]
  for folder, about in abouts.items():
    for name in _SAME:
      if about[name] != first[name]:
        raise UserError(
            f'{folder} and {merged[0]} differ in their {name}; only codes of '
            'one model, in one format, can be put together')
  parts = [part for folder in merged for part in abouts[folder]['parts']]
  _check_distinct(parts)
  return first | {
      'parts': parts,
      'removed': [part for folder in removed for part in (
          *abouts[folder]['parts'], *abouts[folder].get('removed', []))]
                 + [part for folder in merged
                    for part in abouts[folder].get('removed', [])],
      'num_images': sum(abouts[folder]['num_images'] for folder in merged)
                    - sum(abouts[folder]['num_images'] for folder in removed)}


def _check_distinct(parts: Sequence[dict[str, Any]]) -> None:
  """Raises a UserError if images are in several parts."""
  seen = {}
  for part in parts:
    i, n = part['part'].split('/')
    shares = seen.setdefault(
        json.dumps([part['content'], part['split']], sort_keys=True), {})
    if i in shares or any(other != n for other in shares.values()):
      raise UserError(
          f'the images of {part["data_dir"] or part["dataset"]} (part '
          f'{part["part"]}) would count twice; give each part once')
    shares[i] = n


def _write_merged(folder: str, merged: Sequence[str], removed: Sequence[str],
                 about: dict[str, Any]) -> None:
  """Writes the files of codes that are put together.

  Args:
    folder: existing folder to write to.
    merged: folders whose codes are put together.
    removed: folders whose codes are taken away.
    about: what `_merged_about` gives.

  Raises:
    UserError: when files are damaged, or what is removed is not there.
  """
  def path(name: str, where: str = folder) -> str:
    return os.path.join(where, f'{name}.{about["format"]}')

  found = {}
  if any(spec['grouping'] for spec in about['factors'].values()):
    wholes, parts = (
        [files.read_evidence(os.path.join(where, files.EVIDENCE_FILE))[0]
         for where in folders] for folders in (merged, removed))
    for name in wholes[0]:
      found[name] = evidence.merge([one[name] for one in wholes])
      if parts:
        found[name] = evidence.remove(
            found[name], evidence.merge([one[name] for one in parts]))
  gone = {source for where in removed
          for block in files.read_table(path('images', where))
          for source in map(str, block['source']())}

  def images() -> Iterator[files.Block]:
    for where in merged:
      yield from _without(files.read_table(path('images', where)), gone)

  left = sum(len(block['source']()) for block in images()) if gone else None
  if left is not None and left != about['num_images']:
    raise UserError(
        f'{about["num_images"]:,} images should be left after the removal, but '
        f'{left:,} are: images to remove are missing, or image names are not '
        'distinct; remove only what was merged before')
  files.write_table(path('images'), images)
  write_groups(folder, found, about)


def write_groups(folder: str, found: dict[str, Evidence],
                 about: dict[str, Any]) -> None:
  """Writes the tables of groups, the evidence and about.json.

  Args:
    folder: existing folder.
    found: evidence by factor.
    about: what about.json shall say.
  """
  posterior = registry.from_dict(about['group_posterior'], GROUP_POSTERIORS)
  for name, sums in found.items():
    q = evidence.to_normal(posterior, sums)
    block = {
        'name': lambda sums=sums: list(sums.names),
        'count': lambda sums=sums: sums.count,
        'mean': lambda q=q: np.asarray(q.mean, np.float32),
        'variance': lambda q=q: np.asarray(np.exp(q.logvar), np.float32)}
    files.write_table(os.path.join(
        folder, f'groups_{name}.{about["format"]}'), lambda block=block: [
            block])
  if found:
    files.write_evidence(
        os.path.join(folder, files.EVIDENCE_FILE), found, about)
  with open(os.path.join(folder, files.ABOUT_FILE), 'w',
            encoding='utf-8') as file:
    file.write(json.dumps(about, indent=1) + '\n')


def _without(blocks: Iterable[files.Block], gone: set[str]
             ) -> Iterator[files.Block]:
  """A table without the images of some names."""
  for block in blocks:
    if gone:
      kept = np.array([source not in gone
                       for source in map(str, block['source']())], bool)
      block = {name: lambda read=read, kept=kept: _chosen(read(), kept)
               for name, read in block.items()}
    yield block


def _chosen(values: Any, kept: np.ndarray) -> Any:
  if isinstance(values, np.ndarray):
    return values[kept]
  return [value for value, keep in zip(values, kept) if keep]
