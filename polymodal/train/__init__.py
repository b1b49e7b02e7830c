"""Training: the loop, the optimiser, checkpoints, processes. Knows objectives and modalities only by their base."""
