"""Drives the scheduler: placing, promises, leadership."""
