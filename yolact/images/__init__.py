"""From the bytes of an image file to the network's input."""
