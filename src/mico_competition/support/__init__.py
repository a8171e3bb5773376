"""Tools that all other packages share: files, progress bars, messages, CPUs, the command line."""
