"""Audio: spoken digits by digit and by speaker, from a folder of .wav files.

    python examples/spoken_digits.py FOLDER

The files are called DIGIT_SPEAKER_INDEX.wav, as in the Free Spoken Digit
Dataset, in which recordings with an index below 5 are the test set; so they are
here. The code of the digit should reveal what was said and not by whom, and
that of the speaker by whom and not what. Two groupings of the same recordings
need only a dict of labels.
"""

import os
import sys
import wave

import numpy as np
from sklearn.linear_model import LogisticRegression

import mlvae_jax as ml

NUM_FRAMES, NUM_BANDS, TEST_BELOW = 32, 32, 5


def read_wav(path: str) -> tuple[np.ndarray, int]:
  """Samples `[T]` in [-1, 1] of the first channel, and samples per second."""
  with wave.open(path) as file:
    if file.getsampwidth() != 2:
      raise ValueError(f'{path}: expected samples of 16 bits')
    data = file.readframes(file.getnframes())
    samples = np.frombuffer(data, '<i2')[::file.getnchannels()]
    return samples / 32768.0, file.getframerate()


def log_mel(samples: np.ndarray, rate: int) -> np.ndarray:
  """Log energies `[frames, bands]`; the frames span the whole recording."""
  size = rate * 32 // 1000  # Windows of 32 milliseconds.
  samples = np.pad(samples, (0, max(0, size - len(samples))))
  starts = np.linspace(0, len(samples) - size, NUM_FRAMES).astype(int)
  frames = samples[starts[:, None] + np.arange(size)] * np.hanning(size)
  energy = np.abs(np.fft.rfft(frames)) ** 2
  # Triangles between frequencies that are equally far apart in mel.
  top = 2595.0 * np.log10(1.0 + rate / 2 / 700.0)
  hertz = 700.0 * (10.0 ** (np.linspace(0.0, top, NUM_BANDS + 2) / 2595.0) - 1)
  low, middle, high = hertz[:-2], hertz[1:-1], hertz[2:]
  frequency = np.fft.rfftfreq(size, 1.0 / rate)[:, None]
  weights = np.maximum(0.0, np.minimum(
      (frequency - low) / (middle - low), (high - frequency) / (high - middle)))
  value = np.log(energy @ weights + 1e-6)
  return value - value.mean()  # How loud a recording is does not matter.


def load(folder: str) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
  """Recordings `[N, frames, bands]`, labels, and which are for testing."""
  names = sorted(name for name in os.listdir(folder) if name.endswith('.wav'))
  digits, speakers, indices = zip(
      *(name.removesuffix('.wav').split('_') for name in names))
  x = np.stack([log_mel(*read_wav(os.path.join(folder, name)))
                for name in names])
  labels = {'digit': np.array(digits), 'speaker': np.array(speakers)}
  return np.float32(x), labels, np.array(indices, int) < TEST_BELOW


def main(folder: str, steps: int = 1000) -> dict[str, float]:
  """Accuracy of a linear classifier of each label on each code."""
  x, labels, test = load(folder)
  x = (x - x[~test].mean(axis=0)) / (x[~test].std(axis=0) + 1e-6)
  data = ml.GroupedData.from_labels(
      x[~test], {name: values[~test] for name, values in labels.items()})
  model = ml.Model(
      ml.parse_factors('digit:8:digit,speaker:8:speaker,style:4|digit|speaker'),
      x.shape[1:],
      ml.Gaussian(0.5, learn=True), ml.MLP((256,), 'silu'))
  params, _ = ml.fit(
      model, data, steps=steps, groups_per_batch=12, max_group_size=8,
      evidence='random',
      config=ml.TrainConfig(penalties=ml.separating_penalties(model)))

  codes = ml.infer(model, params, x)
  return {
      f'{label} from {code}': float(LogisticRegression(max_iter=1000).fit(
          codes[code][~test], truth[~test]).score(
              codes[code][test], truth[test]))
      for label, truth in labels.items() for code in codes}


if __name__ == '__main__':
  if len(sys.argv) < 2:
    sys.exit(__doc__)
  for name, accuracy in main(sys.argv[1], *map(int, sys.argv[2:])).items():
    print(f'{name:20} {accuracy:.3f}')
