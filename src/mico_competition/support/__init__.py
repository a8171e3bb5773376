"""What every part shares: files, progress, messages, and the CPUs."""
