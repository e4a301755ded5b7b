"""Contracts: frozen messages, subjects, ids and error codes. No I/O, no clock."""
