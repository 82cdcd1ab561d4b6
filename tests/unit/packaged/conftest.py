"""A packaged model of a few bytes, and a home to pull it into."""

from tests.toys.tiny_wheel import home, model, wheel

__all__ = ["home", "model", "wheel"]
