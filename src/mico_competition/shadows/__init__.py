"""Trains the shadow models of a dataset: a balanced mask, then one model for each row of it."""
