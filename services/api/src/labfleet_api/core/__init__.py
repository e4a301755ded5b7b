"""Decisions of the front door: translation between docker's words and ours. No I/O, no clock."""
