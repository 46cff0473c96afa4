"""COCO annotations: reading, checks and average precision."""
