"""Datasets: reading their official files, and holding them compactly in memory."""
