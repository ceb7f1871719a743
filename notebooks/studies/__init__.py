"""What the chapters need beside the package: a module a question of one chapter, and the figures of several."""
