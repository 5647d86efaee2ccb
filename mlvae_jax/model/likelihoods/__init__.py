"""Likelihoods p(x | z): what observations are, and how a decoder gives them."""
