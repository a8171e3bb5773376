"""Trains a model, or a stack of small ones, with a scenario's settings, with or without DP-SGD."""
