"""Faces: folders of identities on disk, and made ones."""
