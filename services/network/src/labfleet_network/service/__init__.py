"""The network service at work, in its two roles: host and entry."""
