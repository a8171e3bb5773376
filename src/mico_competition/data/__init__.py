"""Datasets: their official forms on disk, and how they are held in memory."""
