"""Placement: decides which host runs a container and keeps the fleet's promises."""
