"""Weights files: own checkpoints, official releases, initial weights."""
