"""Evaluates attacks: each target model is attacked without its labels, and scores are measured."""
