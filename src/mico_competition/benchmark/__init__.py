"""The reference benchmark: fleets from fixed seeds, attacks measured on them, and their entries."""
