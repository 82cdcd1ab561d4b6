"""Trained heads: small networks that guess a target's next tokens from its hidden states."""
