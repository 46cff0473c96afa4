"""The pipeline: from the units that are missing to published parts."""
