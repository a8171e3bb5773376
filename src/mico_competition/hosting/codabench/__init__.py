"""Competition bundles for Codabench and CodaLab: writes, checks and rehearses them."""
