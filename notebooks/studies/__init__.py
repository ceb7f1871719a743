"""What one chapter alone needs, a module a question."""
