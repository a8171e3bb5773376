"""Attacks that use a model's weights."""
