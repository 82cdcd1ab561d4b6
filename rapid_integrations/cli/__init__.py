"""The `rapid` command."""
