"""Measurements of cost: speed against PyTorch, many groups, SVI."""
