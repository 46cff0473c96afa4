"""The manifest: which images a run has, in which unit and part."""
