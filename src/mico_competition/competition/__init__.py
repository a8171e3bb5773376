"""What defines a competition: its table of tasks and scenarios, splits, folders and submissions."""
