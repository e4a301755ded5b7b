"""The chassis every service stands on: bus, key-value store, logs, metrics, processes, byte streams."""
