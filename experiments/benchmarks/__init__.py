"""What things cost: speed beside PyTorch, many groups, SVI."""
