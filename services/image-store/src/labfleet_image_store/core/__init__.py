"""Decisions of the store: names, manifests, what an image is. Pure functions."""
