"""The runs of a study: flags, variables, checks before anything starts."""

import pytest

from experiments.cli import UserError
from experiments.studies import plan
from tests.helpers import studies


def test_every_setting_meets_every_seed(tmp_path):
  _, runs = studies.make_runs(tmp_path)
  assert [(r.setting.name, r.seed) for r in runs] == [
      ('plain', 0), ('leakage', 0), ('plain', 1), ('leakage', 1)]
  assert len({r.workdir for r in runs}) == 4
  assert runs[1].workdir == str(tmp_path / 'leakage-0')
  assert runs[3].config.penalties == 'mean_leakage/style:10'
  assert runs[3].config.seed == 1 and runs[3].config.data_dir == '/data'
  train, evaluate = plan.commands(runs[3])
  assert train[1:3] == ['-m', 'experiments.train']
  assert {'--seed=1', '--steps=4', '--hidden_sizes=8', '--eval=false',
          '--data_dir=/data', f'--workdir={runs[3].workdir}'} <= set(train)
  assert evaluate[3:] == [
      '--ks=1', '--probe_steps=5', f'--workdir={runs[3].workdir}']


def test_settings_override_data_and_data_override_flags(tmp_path):
  study, runs = studies.make_runs(tmp_path, studies.TEXT + """
[data.few]
steps = 8
sigma = 0.5
evaluate = {ks = 2}
[data.many]
[settings.long]
sigma = 0.25
evaluate = {probe_steps = 7}
""")
  assert len(study.data) == 2 and len(runs) == 12
  named = {(r.data.name, r.setting.name): r for r in runs if r.seed == 0}
  run = named['few', 'long']
  assert run.workdir == str(tmp_path / 'few-long-0')
  assert run.name == 'few, long, seed 0'
  assert (run.config.steps, run.config.sigma) == (8, 0.25)
  assert run.evaluate == {'ks': '2', 'probe_steps': '7'}
  assert named['few', 'plain'].config.sigma == 0.5
  assert named['many', 'plain'].config.steps == 4


def test_only_and_seeds_select(tmp_path):
  _, runs = studies.make_runs(tmp_path, only=['leakage'], seeds=[1])
  assert [r.workdir for r in runs if r.selected] == [
      str(tmp_path / 'leakage-1')]
  text = studies.TEXT + "[data.here]\n[data.there]\ndata_dir = '$ELSEWHERE'\n"
  _, runs = studies.make_runs(tmp_path, text, only=['here'])
  assert {r.data.name for r in runs if r.selected} == {'here'}
  # A variable that no selected run needs may be missing.
  assert {r.data.name for r in runs if r.config is None} == {'there'}
  for wrong, message in (({'only': ['x']}, '--only: .* has no x; it has plain'),
                         ({'seeds': [7]}, '--seeds: .* has no 7; it has 0, 1')):
    with pytest.raises(ValueError, match=message):
      studies.make_runs(tmp_path, **wrong)


@pytest.mark.parametrize('old, new, message', [
    ("penalties = 'mean_leakage/style:10'", "penaltys = 'x'",
     r"\[settings.leakage\]: Unknown command line flag 'penaltys'"),
    ("penalties = 'mean_leakage/style:10'", "penaltys = '$DATA'",
     r"\[settings.leakage\]: Unknown command line flag 'penaltys'"),
    ("penalties = 'mean_leakage/style:10'", "penalties = 'leak/style:10'",
     r'\[flags\] with \[settings.leakage\]: .*leak'),
    ('steps = 4', "steps = 'four'", r'\[flags\]: flag --steps=four'),
    ('steps = 4', 'steps = 0', r'\[flags\]: flag --steps=0'),
    ('steps = 4', "steps = '$DATA'", r'flag --steps=/data'),
    ('steps = 4', 'steps = 4\nepochs = 4', '--steps or --epochs, not both'),
    ('probe_steps', 'probe_step', r"\[evaluate\]: Unknown .*'probe_step'"),
    ('ks = 1\n', 'ks = 0\n', 'expected --ks as comma-separated'),
    ('$DATA', '${OTHER}/x', r'\[flags\]: \$OTHER has no value; give '
     '--define=OTHER=VALUE, or set the variable OTHER'),
])
def test_mistakes_are_found_before_anything_starts(tmp_path, old, new, message):
  assert old in studies.TEXT
  with pytest.raises(UserError, match=message) as raised:
    studies.make_runs(tmp_path, studies.TEXT.replace(old, new, 1))
  assert str(raised.value).startswith(str(tmp_path / 'small.toml'))
  assert '\n' not in str(raised.value)
