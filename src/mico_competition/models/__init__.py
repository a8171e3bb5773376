"""Weights on disk and text models: what `models` is made of."""
