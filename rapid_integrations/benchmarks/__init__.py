"""Measuring speed and memory on this machine, beside what a user would otherwise pick, in the same run."""
