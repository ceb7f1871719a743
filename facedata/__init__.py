"""Photographs to a folder of aligned faces: lists, download, detection, alignment."""
