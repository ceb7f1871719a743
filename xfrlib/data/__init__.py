"""Folders of identities on disk."""
