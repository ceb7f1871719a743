"""What the chapters need beside the package: a module a question of one chapter, and what several share."""
