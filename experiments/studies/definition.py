"""The file of a study: settings, seeds and data to compare, and the output.

  title = 'Penalties on digits'
  about = 'Which penalties separate content from style.'
  seeds = [0, 1, 2]

  [flags]                     # flags of experiments.train, for every run
  dataset = 'mnist'
  data_dir = '$DATA'          # --define=DATA=PATH, or the environment

  [evaluate]                  # flags of experiments.evaluate
  ks = 1

  [settings.paper]            # a table of flags for each setting
  label = 'the paper'         # name in tables and figures
  penalties = ''

  [settings.leakage]
  penalties = 'mean_leakage/style:400'
  evaluate = {probe_steps = 2000}  # changes to [evaluate] for this setting

  [data.few]                  # optional, also a table of flags: every setting
  epochs = 5                  # is trained on every data set

  [[columns]]
  name = 'leak'               # for figures and table.csv
  heading = 'style, %'
  section = 'probes'          # section of evaluation.json
  where = {code = 'style', k = 1, source = ['mean']}  # rows that match all
  field = 'accuracy'          # or a path, such as kl.style
  minus = 'chance'            # another field of the same row, subtracted
  reduce = 'max'              # max, min or mean, if several rows match
  scale = 100
  decimals = 1
  chance = true               # show the chance level as well

  [[columns]]
  name = 'elbo'
  section = 'elbo'            # a section without rows
  field = 'test.elbo_per_image'

  [[figures]]
  name = 'frontier'
  x = 'leak'                  # names of columns
  y = 'elbo'
  size = 'leak'               # column that the areas of points show

Required are `settings`, the name, section and field of a column, and the name,
x and y of a figure; every other key is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

REDUCTIONS = ('only', 'max', 'min', 'mean')


@dataclasses.dataclass(frozen=True)
class Flags:
  """Flags as text, and the table of the file that gives them.

  Attributes:
    table: name of the table.
    values: values by name of the flag; $NAMES are not yet replaced.
  """

  table: str
  values: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Choice:
  """A setting, or a data set.

  Attributes:
    name: name in the file and in folders.
    label: name in tables and figures.
    flags: flags of training.
    evaluate: flags of the evaluation.
  """

  name: str
  label: str
  flags: Flags
  evaluate: Flags


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of the table, which is a number of every evaluation.

  Attributes:
    name: name in figures and in table.csv.
    heading: heading in the table.
    section: key of evaluation.json.
    where: values by key that a row must have to match; a tuple allows any of
      its values.
    field: path to the number in a row, or in a section without rows.
    minus: path to a number that is subtracted; '' subtracts nothing.
    reduce: what is taken if several rows match: max, min or mean; `only`
      expects a single row.
    scale: factor by which the number is multiplied.
    decimals: number of decimals.
    chance: whether the number `chance` of the rows is shown as well.
  """

  name: str
  heading: str
  section: str
  where: Mapping[str, tuple]
  field: str
  minus: str
  reduce: str
  scale: float
  decimals: int
  chance: bool


@dataclasses.dataclass(frozen=True)
class Scatter:
  """A figure of one column against another.

  Attributes:
    name: name of the file, without .png.
    title: heading.
    x: name of the column on the horizontal axis.
    y: name of the column on the vertical axis.
    size: name of the column that the areas of points show; '' draws all points
      in one size.
    caption: sentences added to the caption.
  """

  name: str
  title: str
  x: str
  y: str
  size: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Study:
  """A comparison of settings over seeds and data sets.

  Attributes:
    name: name of the file, without .toml.
    path: path of the file.
    title: heading of the page.
    about: what the study is about.
    seeds: seeds of the runs.
    flags: flags of training that all runs share.
    evaluate: flags of the evaluation that all runs share.
    settings: settings to compare.
    data: data sets; one without a name if the file has none.
    columns: columns of the table.
    figures: figures.
  """

  name: str
  path: str
  title: str
  about: str
  seeds: tuple[int, ...]
  flags: Flags
  evaluate: Flags
  settings: tuple[Choice, ...]
  data: tuple[Choice, ...]
  columns: tuple[Column, ...]
  figures: tuple[Scatter, ...]
