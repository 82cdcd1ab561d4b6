"""A model folder, and a home of the test's own."""

from tests.toys.model_folder import folder, home, original

__all__ = ["folder", "home", "original"]
