"""Measuring speed and quality, with the methods that a user would otherwise pick in the same run."""
