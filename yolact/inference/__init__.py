"""From prepared images to instances: engines, NMS, masks."""
