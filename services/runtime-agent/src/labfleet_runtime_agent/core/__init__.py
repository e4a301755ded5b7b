"""Decisions of the agent: pure functions over frozen data."""
