"""The front door: the Docker Engine API over the fleet."""
