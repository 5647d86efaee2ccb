"""Curves of training."""

import numpy as np

from experiments.evaluation import curves
from experiments.pictures import sheets


def test_axes_leave_out_the_first_steps_and_keep_the_last():
  axes = sheets.Figure().subplots()
  axes.plot(np.concatenate([[-1e6] * 5, np.linspace(-200, -100, 95)]))
  curves._limit(axes, from_zero=False)
  low, high = axes.get_ylim()
  assert -250 < low < -190 and -100 < high < -80
