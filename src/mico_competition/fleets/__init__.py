"""Fleets: hundreds of models of one scenario, trained by workers that may fail at any time."""
