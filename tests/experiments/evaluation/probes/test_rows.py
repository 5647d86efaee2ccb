"""What is probed for every k, of the first grouping and of further ones."""

from experiments.evaluation.context import ProbeSettings
from experiments.evaluation.probes import rows as probes


def test_a_further_factor_has_probes_of_its_own_label(hand_made):
  found = list(probes.further_probes(
      hand_made.codes, hand_made.groupings[1:], (1, 3, 1000),
      ProbeSettings(60)))
  assert {(r['code'], r['label'], r['k'], r['strategy']) for r in found} == {
      (code, 'light', k, strategy) for code in ('light', 'untrained_light')
      for k, strategy in ((1, 1), (3, 2))}


def test_first_probes_leave_out_factors_of_another_grouping(hand_made):
  names = {code.name for code in probes.first_codes(
      hand_made.codes, hand_made.images, 'who', (1, 2))}
  assert names == {'who', 'untrained_who', 'style', 'untrained_style',
                   'style_accumulated', 'pixels'}
