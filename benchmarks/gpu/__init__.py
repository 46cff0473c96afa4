"""Everything that a GPU can be asked in ten minutes: `python -m benchmarks.gpu`."""
