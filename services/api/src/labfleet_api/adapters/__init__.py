"""What touches the world: HTTP connections, the bus, data ports."""
