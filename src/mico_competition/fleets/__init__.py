"""Hundreds of models on machines that fail: a ledger, then workers here or on a cluster."""
