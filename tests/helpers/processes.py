"""Training runs in processes of their own, as a cluster starts them."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from tests.helpers import ROOT

DEVICES_FLAG = '--xla_force_host_platform_device_count'


def make_images(folder, num_groups=3, per_group=20, size=8):
  """A folder of images per group, drawn at random."""
  rng = np.random.default_rng(0)
  for group in range(num_groups):
    (folder / f'g{group}').mkdir(parents=True)
    for i in range(per_group):
      pixels = rng.integers(0, 100, (size, size), np.uint8) + 50 * group
      Image.fromarray(pixels.astype(np.uint8)).save(
          folder / f'g{group}' / f'{i}.png')
  return folder


def free_port():
  """A port of the loopback that nobody listens on."""
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def command(workdir, data, **flags):
  """The command line of a small run without penalties; flags override."""
  flags = {
      'dataset': 'folder', 'data_dir': data, 'workdir': workdir,
      'image_size': 8, 'hidden_sizes': '8', 'steps': 200, 'chunk_steps': 20,
      'factors': 'content:3:group,style:2', 'groups_per_batch': 5,
      'max_group_size': 3, 'eval_every': 100, 'checkpoint_every': 100,
      'penalties': '', 'eval': False, 'figures': False} | flags
  return [sys.executable, '-W', 'error', '-m', 'experiments.train'] + [
      f'--{name}={value}' for name, value in flags.items()]


def environment(devices=1, **variables):
  """Of a process with so many virtual CPU devices."""
  others = re.sub(rf'{DEVICES_FLAG}=\d+', '', os.environ.get('XLA_FLAGS', ''))
  return os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'{others} {DEVICES_FLAG}={devices}'.strip()} | variables


class Process:
  """A process whose output goes to a file, so that no pipe fills up."""

  def __init__(self, args, env, log):
    self._log = log
    with open(log, 'wb') as file:
      self.popen = subprocess.Popen(
          args, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)

  def wait(self, timeout=240):
    """Its exit code."""
    return self.popen.wait(timeout)

  @property
  def output(self):
    """What it has printed."""
    return self._log.read_text(errors='replace')

  def await_output(self, text, timeout=120):
    """Waits until it has printed something."""
    end = time.monotonic() + timeout
    while text not in self.output:
      assert time.monotonic() < end, self.output
      assert self.popen.poll() is None, self.output
      time.sleep(0.05)


@contextlib.contextmanager
def started(args, logs, number=1, devices=1, env=None):
  """Starts a command as one or several processes; ends what is left of them.

  Args:
    args: the command; of several processes each gets its flags.
    logs: folder of their outputs.
    number: how many.
    devices: of each.
    env: function from a process's number to further variables, in place of
      flags.
  """
  port, processes = free_port(), []
  logs.mkdir(exist_ok=True, parents=True)
  for i in range(number):
    flags = []
    if number > 1 and env is None:
      flags = ['--distributed=explicit', f'--process_id={i}',
               f'--num_processes={number}',
               f'--coordinator_address=127.0.0.1:{port}']
    processes.append(Process(
        args + flags, environment(devices, **(env(i) if env else {})),
        logs / f'{time.monotonic_ns()}-{i}.log'))
  try:
    yield processes
  finally:
    for process in processes:
      if process.popen.poll() is None:
        process.popen.kill()
        process.popen.wait()


def run(args, logs, **layout):
  """Runs a command to its end, which has to be good; gives its output."""
  with started(args, logs, **layout) as processes:
    codes = [process.wait() for process in processes]
    output = '\n'.join(process.output for process in processes)
  assert not any(codes), output[-2000:]
  assert 'Warning' not in output, output[-2000:]
  return output


def curve(workdir, split='train', value='elbo'):
  """A number of metrics.jsonl over the steps."""
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  records = map(json.loads, lines)
  return np.array([r[value] for r in records if r['split'] == split])
