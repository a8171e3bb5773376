"""Releases: what participants may see of trained models, commitments to the rest, leak checks."""
