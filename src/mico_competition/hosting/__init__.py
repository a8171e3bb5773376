"""Publishing a competition: bundles for Codabench and CodaLab, leaderboards, Hugging Face Hub."""
