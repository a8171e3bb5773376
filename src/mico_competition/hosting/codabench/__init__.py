"""Bundles for Codabench and CodaLab: making, checking and rehearsing them."""
