"""The recipes of 2023's prize winners that need more than a formula."""
