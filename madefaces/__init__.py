"""Faces of people who do not exist, drawn by a program that knows every part of them."""
