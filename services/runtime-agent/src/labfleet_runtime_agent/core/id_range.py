"""The ids of a container, a range of the host's."""

IDS_PER_CONTAINER = 65_536
