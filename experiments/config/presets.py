"""One preset per data set; flags override a preset's values."""

from __future__ import annotations

import dataclasses

from experiments.config.settings import Config
from mlvae_jax.objective.penalties.registry import (
    SEPARATING,
    SEPARATING_SEVERAL,
)

# What makes codes separate, see docs/models.md: style is given content, a
# group's evidence is of random size, content has to reveal its group within a
# batch, and style must not, as measured by a kernel and by a classifier.
_SEPARATE, _SEPARATE_SEVERAL = (
    ','.join(f'{kind}/all:{weight:g}' for kind, weight in weights.items())
    for weights in (SEPARATING, SEPARATING_SEVERAL))

# Dimensions, likelihood, batches of about 256 images and, unless a preset says
# otherwise, the network are those of the first author's code.
_DIGITS = Config(
    factors='content:10:digit,style:10|content', evidence='random',
    penalties=_SEPARATE, learning_rate=2e-3, decay_fraction=0.5)
_FOLDER = Config(
    dataset='folder', image_size=64, factors='content:16:group,style:16',
    likelihood='gaussian', groups_per_batch=32, max_group_size=8,
    # Thousands of pixels that vary together saturate tanh: small steps of their
    # weights add up.
    activation='silu',
    # Of both sets of weights the one that costs small folders less content.
    evidence='random', penalties=_SEPARATE_SEVERAL)
_FACES = Config(
    # The paper's 48,880 / 25,000 / 25,000 identities, and ten images of each.
    dataset='celeb', image_size=64, resize='crop', celeb_top_k=10,
    split_by='group',
    split_fractions=(25_000 / 98_880, 25_000 / 98_880),
    # Style is not given content: with groups of two to four images, the members
    # of a group would repel each other, which the kernel mistakes for
    # independence.
    factors='content:128:identity,style:32', likelihood='gaussian', sigma=0.1,
    network='conv', channels=(16, 32, 64, 128), hidden_sizes=(256,),
    activation='silu', steps=3000, groups_per_batch=44, max_group_size=4,
    min_group_size=2, visit='groups', batch_size=128,
    # Thousands of people are harder to tell apart than ten digits, and the ELBO
    # of so many pixels pulls harder.
    evidence='random',
    penalties='contrast/all:2000,mean_leakage/all:3000,adversary/all:30',
    decay_fraction=0.5, augment='flip,shift:2,rotate:5,scale:0.05',
    chunk_steps=25, checkpoint_every=1000)

PRESETS = {
    # So few digits have to be augmented, or content would predict the digit no
    # better than pixels do. Half of them stay as they are, or style would
    # reveal the digit of images that are not augmented.
    # With a single hidden layer, whose units add up, the decoder superimposes
    # strokes where contents and styles meet that no image has together.
    'mnist5k': dataclasses.replace(
        _DIGITS, hidden_sizes=(500, 500), steps=4000,
        augment='shift:1,rotate:10,scale:0.1,shear:0.15,share:0.5'),
    'mnist': dataclasses.replace(
        _DIGITS, dataset='mnist', steps=10_000, eval_every=1000,
        checkpoint_every=5000),
    'folder': _FOLDER,
    'celeb': _FACES,
    'celeba': dataclasses.replace(_FACES, dataset='celeba'),
    'omniglot': Config(
        dataset='omniglot', nested_groupings='alphabet/character',
        image_size=32, split_by='group', split_fractions=(0.1, 0.2),
        rotations_as_groups=True, factors='content:64:character,style:16',
        likelihood='bernoulli', network='conv', channels=(32, 64, 128),
        hidden_sizes=(256,), activation='silu', steps=5000,
        groups_per_batch=32, max_group_size=8, visit='groups', batch_size=256,
        evidence='random', penalties=f'{_SEPARATE},contrast/content:2000',
        decay_fraction=0.5, augment='shift:2,rotate:10,scale:0.15,shear:0.2',
        chunk_steps=25, checkpoint_every=1000),
    'fonts': Config(
        dataset='fonts', image_size=32, hold_out='combinations',
        factors='letter:16:letter,font:16:font,style:4|letter|font',
        likelihood='bernoulli', network='conv', channels=(16, 32, 64),
        hidden_sizes=(256,), activation='silu', steps=3000,
        groups_per_batch=16, max_group_size=8, batch_size=128,
        evidence='random', learning_rate=3e-3,
        penalties=_SEPARATE_SEVERAL,
        decay_fraction=0.75, chunk_steps=25, checkpoint_every=500),
    'arrays': Config(
        dataset='arrays', factors='content:8:label,style:8|content',
        evidence='random', penalties=_SEPARATE, standardise=True,
        hidden_sizes=(128,), steps=2000, learning_rate=2e-3,
        decay_fraction=0.5),
    'shapes': Config(
        # One combination per shape and per colour: the model trains on each
        # of them with the other nine.
        dataset='shapes', image_size=32, hold_out=(
            'circle+red,square+orange,triangle+purple,star+yellow,cross+green,'
            'ring+blue,heart+pink,moon+cyan,arrow+brown,bar+black'),
        factors='shape:8:shape,colour:4:colour,style:4',
        likelihood='bernoulli', network='conv', channels=(32, 64, 128),
        hidden_sizes=(256,), activation='silu', steps=8000, max_group_size=12,
        batch_size=128, penalties=_SEPARATE_SEVERAL,
        decay_fraction=0.75, chunk_steps=25, checkpoint_every=1000),
}


def without_extras(preset: Config) -> Config:
  """A preset with nothing but the paper's objective (eqs. 3-7)."""
  # NAME:DIM:GROUPING|GIVEN without what is given.
  factors = [factor.partition('|')[0] for factor in preset.factors.split(',')]
  return dataclasses.replace(
      preset, factors=','.join(factors), evidence='all', penalties='',
      kl_weights='', group_posterior='product')
