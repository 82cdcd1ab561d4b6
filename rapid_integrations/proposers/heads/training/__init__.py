"""Training a head for a target: `rapid train-head`."""
