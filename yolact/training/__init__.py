"""Losses, targets, samples and optimisation of the training."""
