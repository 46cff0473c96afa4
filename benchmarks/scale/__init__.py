"""Measurements of the label job at growing sizes of the lake, without a model."""
