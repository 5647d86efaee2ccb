"""The optimiser's step, the loop, evaluation over a pass, checkpoints."""
