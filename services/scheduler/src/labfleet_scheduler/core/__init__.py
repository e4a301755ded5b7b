"""Decisions of the scheduler: pure functions over snapshots."""
