"""Measure speed and memory on this machine, beside other engines in the same run."""
