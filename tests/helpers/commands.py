"""Commands as documents show them: what they run, and whether flags exist."""

import json
import pathlib
import subprocess
import sys

from tests.helpers import ROOT

# Which programs a shell finds; all but `python` do nothing.
_PROGRAMS = ('python', 'python3', 'pip', 'sphinx-build', 'tensorboard', 'twine')
# Records its name and its arguments, in a single write.
_STAND_IN = r"""#!/bin/sh
printf '%s\037' "$0" "$@" "$(printf '\036')" >> "$ASKED"
"""


def run(folder: pathlib.Path, script: str, *, programs: tuple[str, ...] = (),
        **env: str) -> list[list[str]]:
  """Runs a script in bash, in which all programs are stand-ins.

  Args:
    folder: folder that the script runs in.
    script: the script. That it uses a variable without a value, or a program
      that is not known, is an error.
    programs: programs that the shell finds as well.
    **env: variables.

  Returns:
    Name and arguments of each program that ran, in order.
  """
  asked = folder / 'asked'
  asked.touch()
  for where in ('bin', '.venv/bin', 'env/bin'):
    (folder / where).mkdir(parents=True, exist_ok=True)
    for name in (*_PROGRAMS, *programs):
      path = folder / where / name
      path.write_text(_STAND_IN)
      path.chmod(0o755)
  done = subprocess.run(
      ['/bin/bash', '-eu', '-c', script], cwd=folder, text=True, timeout=60,
      env={'PATH': str(folder / 'bin'), 'HOME': str(folder),
           'ASKED': str(asked), **env},
      capture_output=True, check=False)
  assert done.returncode == 0, (
      f'{done.stderr}(Indent commands alone; fence other text.)')
  return [[pathlib.Path(words[0]).name, *words[1:-1]] for words in (
      text.split('\037') for text in asked.read_text().split('\036\037')[:-1])]


# Flags of one entry point after the other are defined, parsed and removed.
_CHECKED = """
import importlib, json, sys
from absl import flags
from experiments import train
FLAGS = flags.FLAGS

def check(module, *arguments):
  for name in list(FLAGS):
    delattr(FLAGS, name)
  found = importlib.import_module(module)
  if not hasattr(found, 'define_flags'):  # Its room does the work.
    found = found.__dict__[{
        'benchmark': 'speed'}.get(module.split('.')[1], module.split('.')[1])]
  found.define_flags()
  _, *rest = FLAGS(['program', *arguments])
  if module == 'experiments.train':
    train.config_from_flags(FLAGS.flag_values_dict())
    assert not rest, rest
  elif module == 'experiments.launch':
    if rest:
      check('experiments.train', *rest)
  elif module != 'experiments.study':
    assert not rest, rest

for command in json.loads(sys.stdin.read()):
  try:
    check(*command)
  except Exception as error:
    print(*command, '->', error)
"""


def check(commands: list[list[str]]) -> None:
  """Asserts that flags exist and have possible values.

  Args:
    commands: for each, the name of a module of `experiments`, and arguments.
  """
  done = subprocess.run(
      [sys.executable, '-c', _CHECKED], input=json.dumps(commands), cwd=ROOT,
      text=True, capture_output=True, timeout=240, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  assert not done.stdout, done.stdout
