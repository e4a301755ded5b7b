"""The agent at work: one worker per container, jobs, streams, what it publishes."""
