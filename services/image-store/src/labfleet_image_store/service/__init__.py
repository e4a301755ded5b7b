"""The store at work: the registry over HTTP, jobs on the bus, the sweeper."""
