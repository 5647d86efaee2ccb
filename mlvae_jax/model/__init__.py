"""Factors, likelihoods, networks, and the model made of them."""
