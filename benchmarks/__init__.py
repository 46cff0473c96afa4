"""Measurements of single claims. Not part of the installed package."""
