"""The switchboard: interfaces, addresses, names and ports of one host."""
