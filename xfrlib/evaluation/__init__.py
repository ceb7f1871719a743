"""Deletion and retention: masks of one exact size, the perturbed passes, the controls and their statistics."""
