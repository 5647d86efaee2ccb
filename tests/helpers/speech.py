"""Simulated recordings of made-up words by made-up speakers, as .wav files."""

import wave

import numpy as np

RATE = 8000
# A word glides from one pair of resonances, in hertz, to another; a speaker has
# a pitch, and a vocal tract that scales the resonances.
WORDS = (((300, 2300), (700, 1200)), ((700, 1200), (400, 800)),
         ((400, 2000), (300, 900)), ((500, 1500), (600, 1000)))
SPEAKERS = {'ann': (210.0, 1.15), 'bob': (120.0, 1.0), 'cem': (90.0, 0.85)}


def write_recordings(folder, num_words=3, per_word=10, seed=0):
  """Files {word}_{speaker}_{index}.wav, 0.3 to 0.5 seconds long."""
  rng = np.random.default_rng(seed)
  for digit, word in enumerate(WORDS[:num_words]):
    for name, voice in SPEAKERS.items():
      for index in range(per_word):
        _write(folder / f'{digit}_{name}_{index}.wav', _speak(
            word, *voice, rng))
  return folder


def _speak(word, pitch, scale, rng):
  """Harmonics of a pitch, louder near the two resonances of each moment."""
  time = np.arange(int(RATE * rng.uniform(0.3, 0.5))) / RATE
  pitch = pitch * rng.uniform(0.93, 1.07)
  start, end = np.array(word)[..., None] * scale * rng.uniform(0.97, 1.03)
  resonances = start + (end - start) * time / time[-1]
  harmonics = pitch * np.arange(1, int(RATE / 2 / pitch))[:, None]
  loudness = sum(np.exp(-np.square((harmonics - resonance) / 150.0) / 2.0)
                 for resonance in resonances) + 0.02
  sound = np.sum(loudness * np.sin(2 * np.pi * harmonics * time), axis=0)
  noise = 0.01 * rng.normal(size=len(time))
  return rng.uniform(0.3, 0.9) * sound / np.abs(sound).max() + noise


def _write(path, samples):
  with wave.open(str(path), 'wb') as file:
    file.setparams((1, 2, RATE, 0, 'NONE', ''))
    file.writeframes((32767 * np.clip(samples, -1, 1)).astype('<i2').tobytes())
