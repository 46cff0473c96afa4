"""The network and its parts."""
