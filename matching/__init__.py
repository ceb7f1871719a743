"""Why do two pictures match, or not? One command from photographs to a page: `python -m matching`."""
