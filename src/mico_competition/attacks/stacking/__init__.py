"""Attacks that learn from shadow models how to combine signals (torch)."""
