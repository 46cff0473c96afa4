"""Shared by all commands: options, errors, logs, metrics, the connection to Ray."""
