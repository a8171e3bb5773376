"""Attacks asked, answered and measured: problems, the named attacks, honest evaluation."""
