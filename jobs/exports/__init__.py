"""The formats that `yolact export` writes: one module each, and what they share."""
