"""Factors: the two presets, and the text form of the flag."""

import pytest

from mlvae_jax.model.factors import (
    Factor,
    check_factors,
    ml_vae,
    parse_factors,
    vae,
)


def test_ml_vae_groups_content_and_leaves_style_alone():
  assert ml_vae(3, 2, 'identity') == (
      Factor('content', 3, 'identity'), Factor('style', 2))


def test_vae_is_one_ungrouped_factor():
  assert vae(7) == (Factor('z', 7, None),)


def test_factors_are_hashable_so_that_models_are_static():
  assert hash(ml_vae(3, 2)) == hash(ml_vae(3, 2))


def test_parsed_text_keeps_the_order():
  assert parse_factors('content:10:identity, light:4:lamp ,style:5') == (
      Factor('content', 10, 'identity'), Factor('light', 4, 'lamp'),
      Factor('style', 5))


@pytest.mark.parametrize('text, match', [
    ('', "NAME:DIM.*got ''"),
    ('content', "NAME:DIM.*got 'content'"),
    ('content:ten', "NAME:DIM.*got 'content:ten'"),
    ('content:-1', "NAME:DIM.*got 'content:-1'"),
    ('content:3:a:b', "NAME:DIM.*got 'content:3:a:b'"),
    ('content:3:', "got 'content:3:'"),
    ('content:3,', "NAME:DIM.*got ''"),
    ('content:0', "dim of factor 'content' >= 1, got 0"),
    ('my content:3', "identifier, got 'my content'"),
    ('a:1,a:2', r"distinct names.*\['a', 'a'\]"),
])
def test_text_of_another_form_is_refused(text, match):
  with pytest.raises(ValueError, match=match):
    parse_factors(text)


def test_no_factors_are_refused():
  with pytest.raises(ValueError, match=r'at least one factor.*got \[\]'):
    check_factors(())
