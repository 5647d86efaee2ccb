"""Curves and key numbers of training."""

import numpy as np

from experiments.evaluation import training
from experiments.pictures import sheets


def test_axes_leave_out_the_first_steps_and_keep_the_last():
  axes = sheets.Figure().subplots()
  axes.plot(np.concatenate([[-1e6] * 5, np.linspace(-200, -100, 95)]))
  training._limit(axes, from_zero=False)
  low, high = axes.get_ylim()
  assert -250 < low < -190 and -100 < high < -80


def test_key_numbers_of_the_log():
  records = [{'step': 10, 'images_per_second': 100.0}, {'step': 4000}]
  assert training.key_numbers(records) == [
      ('median images/s', '100'), ('steps', '4,000')]
  assert training.key_numbers([]) == []
