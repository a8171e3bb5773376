"""Models: architectures, checkpoints of 2022 and of today, and text models with tokenizers."""
