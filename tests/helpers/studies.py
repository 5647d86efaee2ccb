"""A small study, whose runs a process that trains nothing can stand for."""

import json
import os
import sys

from experiments.config import library
from experiments.config.settings import to_json
from experiments.studies import plan, reading

TEXT = """
title = 'Two penalties'
about = 'Which one separates.'
seeds = [0, 1]

[flags]
dataset = 'folder'
data_dir = '$DATA'
image_size = 8
hidden_sizes = [8]
factors = 'content:3:group,style:2'
groups_per_batch = 2
max_group_size = 4
steps = 4

[evaluate]
ks = 1
probe_steps = 5

[settings.plain]
label = 'plain $1 | 2'

[settings.leakage]
penalties = 'mean_leakage/style:10'

[[columns]]
name = 'leak'
heading = 'style, %'
section = 'probes'
where = {code = 'style', source = 'mean', k = 1}
field = 'accuracy'
scale = 100
decimals = 1
chance = true

[[columns]]
name = 'elbo'
section = 'elbo'
field = 'test.elbo_per_image'

[[columns]]
name = 'kl'
section = 'strategies'
where = {strategy = 1}
field = 'kl.style'

[[figures]]
name = 'frontier'
x = 'leak'
y = 'elbo'
size = 'kl'
"""
# In place of training: writes what a run leaves.
_WRITE = """
import os, sys
folder = sys.argv[1]
for name, text in zip(('config.json', 'evaluation.json'), sys.argv[2:]):
  with open(os.path.join(folder, name), 'w') as file:
    file.write(text)
"""


def write(folder, text=TEXT):
  """The path of a study's file, written to a folder."""
  path = folder / 'small.toml'
  path.write_text(text)
  return str(path)


def make_runs(folder, text=TEXT, **options):
  """A study and its runs, with their workdirs in a folder."""
  study = reading.read(write(folder, text))
  return study, plan.make_runs(
      study, str(folder), **{'variables': {'DATA': '/data'}} | options)


def evaluation(leak=0.5, elbo=-10.0, kl=2.0):
  """The content of evaluation.json, as far as the study reads it."""
  row = {'code': 'style', 'k': 1, 'chance': 0.25}
  return {
      'probes': [row | {'source': 'mean', 'accuracy': leak},
                 row | {'source': 'sample', 'accuracy': 0.0}],
      'elbo': {'test': {'elbo_per_image': elbo}},
      'strategies': [{'strategy': 1, 'kl': {'style': kl}},
                     {'strategy': 2, 'kl': {'style': 99.0}}]}


def script(code, *arguments):
  """A command that runs a script, in a Python that starts quickly."""
  return [sys.executable, '-I', '-S', '-c', code, *arguments]


def fake_commands(run):
  """Two commands that leave what training and evaluation leave."""
  model = library.make_model(run.config, (8, 8, 1))
  config = json.dumps(
      {'config': to_json(run.config), 'model': model.to_dict()})
  return [script(_WRITE, run.workdir, config),
          script(_WRITE, run.workdir, config, json.dumps(evaluation()))]


def log_of(run):
  """The log of a run."""
  with open(os.path.join(run.workdir, 'study.log'), encoding='utf-8') as file:
    return file.read()
