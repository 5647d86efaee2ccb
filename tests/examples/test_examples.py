"""The examples, in a small form."""

import runpy
import wave

import numpy as np
import pytest

from tests.helpers import ROOT, speech


def _run(name):
  return runpy.run_path(str(ROOT / 'examples' / f'{name}.py'))


def _main(name):
  return _run(name)['main']


@pytest.mark.slow
def test_wines_are_told_apart_as_well_as_by_logistic_regression():
  ours, regression = _main('wine')()
  assert ours >= regression - 1 / 72  # Of 72 wines.
  assert ours > 0.95


@pytest.mark.slow
def test_cells_run():
  found = _main('cells')(steps=3, num_cells=200)
  assert set(found) == {
      f'{label} from {code}' for label in ('type', 'donor')
      for code in ('identity', 'batch', 'style')}
  assert all(0.0 <= value <= 1.0 for value in found.values())


def test_cells_are_drawn_from_the_stated_model():
  x, cell_type, donor = _run('cells')['simulate'](500, seed=3)
  assert x.shape == (500, 60) and x.min() >= 0
  assert len(set(cell_type)) == 6 and len(set(donor)) == 8
  assert x.var(axis=0).mean() > x.mean()  # More than a Poisson has.


@pytest.mark.slow
def test_simulated_words_and_speakers_are_recognised(tmp_path):
  found = _main('spoken_digits')(speech.write_recordings(tmp_path), steps=40)
  # Of 45 recordings held out, three words by three speakers.
  assert found['digit from digit'] > 0.9
  assert found['speaker from speaker'] > 0.9
  assert found['digit from speaker'] < found['digit from digit']
  assert found['speaker from digit'] < found['speaker from speaker']


def test_recordings_of_any_length_become_equally_large(tmp_path):
  digits = _run('spoken_digits')
  speech.write_recordings(tmp_path, num_words=1, per_word=7)
  (tmp_path / 'LICENSE').write_text('not a recording')
  x, labels, test = digits['load'](tmp_path)
  assert x.shape == (21, 32, 32) and np.all(np.isfinite(x))
  assert set(labels['speaker']) == {'ann', 'bob', 'cem'}
  assert test.sum() == 15  # Indices 0 to 4.
  assert digits['log_mel'](np.ones(3), 8000).shape == (32, 32)


def test_a_tone_has_its_energy_in_the_band_of_its_frequency():
  log_mel = _run('spoken_digits')['log_mel']
  time = np.arange(4000) / 8000
  low, high = (log_mel(np.sin(2 * np.pi * frequency * time), 8000)
               for frequency in (300.0, 3000.0))
  assert np.all(low.argmax(axis=1) < 8)  # 300 Hz is 402 of 2146 mel.
  assert np.all(high.argmax(axis=1) > 25)  # 3,000 Hz is 1,877.
  louder = log_mel(0.1 * np.sin(2 * np.pi * 300.0 * time), 8000)
  np.testing.assert_array_equal(louder.argmax(axis=1), low.argmax(axis=1))


def test_samples_of_other_sizes_are_refused(tmp_path):
  with wave.open(str(tmp_path / '0_ann_0.wav'), 'wb') as file:
    file.setparams((1, 1, 8000, 0, 'NONE', ''))
    file.writeframes(bytes(100))
  with pytest.raises(ValueError, match='0_ann_0.wav: expected .* 16 bits'):
    _main('spoken_digits')(tmp_path)


@pytest.mark.parametrize('name', ['wine', 'cells', 'spoken_digits'])
def test_examples_say_how_to_run_them(name):
  text = (ROOT / 'examples' / f'{name}.py').read_text(encoding='utf-8')
  assert f'python examples/{name}.py' in text
