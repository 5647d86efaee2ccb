"""What all entry points share: paths as the shell would read them."""

import errno
import os

from absl import flags
import pytest

from experiments import (
    cli,
    evaluate,
    export,
    figures,
    launch,
    prepare,
    report,
    study,
    train,
)
from experiments.benchmarks import speed, svi_comparison
from experiments.config.flags import Path, Setting, define, expand_path

_PATHS = {'data_dir', 'workdir', 'store_dir', 'vae_workdir', 'tfds_dir',
          'mlvae_workdir', 'svi_workdir', 'json', 'log', 'output',
          'one_shot_runs'}


@pytest.mark.parametrize('path, expected', [
    (None, None), ('', ''), ('~/a', 'HOME/a'), ('$DATA/a', '/data/a'),
    ('${DATA}x/../b', '/b'), ('$DATA', '/data'),
    ('/a/$UNKNOWN/b', '/a/$UNKNOWN/b'), ('a//b/', 'CWD/a/b'),
    ('.', 'CWD')])
def test_paths_expand(monkeypatch, tmp_path, path, expected):
  monkeypatch.setenv('HOME', '/users/me')
  monkeypatch.setenv('DATA', '/data')
  monkeypatch.delenv('UNKNOWN', raising=False)
  monkeypatch.chdir(tmp_path)
  if expected:
    expected = expected.replace('HOME', '/users/me').replace(
        'CWD', os.getcwd())
  assert expand_path(path) == expected


@pytest.mark.parametrize('module', [
    speed, evaluate, export, figures, launch, prepare, report, study,
    svi_comparison, train], ids=lambda module: module.__name__)
def test_every_flag_of_a_path_expands(monkeypatch, module):
  names = {}  # Of its parser, which a flag of a standard kind does not name.
  for kind in ('_string', '_enum', '_list', '_integer', '_bool'):
    monkeypatch.setattr(flags, f'DEFINE{kind}',
                        lambda name, *args, **_: names.update({name: None}))
  monkeypatch.setattr(flags, 'DEFINE', lambda parser, name, *args, **_:
                      names.update({name: parser}))
  module.define_flags()
  found = {name for name, parser in names.items()
           if parser and not isinstance(parser, flags.FloatParser)}
  assert found and found == _PATHS & set(names)


def test_a_folder_that_takes_no_files_is_one_error(monkeypatch, tmp_path):
  cli.check_writable(str(tmp_path))
  assert not list(tmp_path.iterdir())
  with pytest.raises(cli.UserError, match='^cannot write to .*/none: No such'):
    cli.check_writable(str(tmp_path / 'none'))


@pytest.mark.parametrize('code, reason', [
    (errno.ENOSPC, 'No space left on device'),
    (errno.EACCES, 'Permission denied')])
def test_an_evaluation_is_printed_where_it_cannot_be_written(
    monkeypatch, capsys, tmp_path, code, reason):
  def fail(path, text):
    raise OSError(code, reason)

  monkeypatch.setattr(evaluate, 'write_atomically', fail)
  with pytest.raises(cli.UserError, match=(
      f'evaluation.json: {reason}; free space or check its permissions, then '
      'run experiments.evaluate again$')):
    evaluate._write(f'{tmp_path}/evaluation.json', {
        'elbo': {'test': {'elbo_per_image': -12.25}}})
  assert capsys.readouterr().out == 'ELBO per image: test -12.2\n'


def test_a_flag_of_a_path_is_parsed_once_and_stays_empty(monkeypatch):
  monkeypatch.setenv('HOME', '/users/me')
  values = flags.FlagValues()
  for name in ('given', 'empty', 'left'):
    define(name, Setting('A path.', 'Data', Path), values)
  values(['program', '--given=~/a b', '--empty='])
  assert (values.given, values.empty, values.left) == (
      '/users/me/a b', '', None)
