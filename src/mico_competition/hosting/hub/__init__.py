"""Challenges from and to the Hugging Face Hub."""
