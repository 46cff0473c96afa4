"""Boxes, masks and run lengths as pure functions."""
