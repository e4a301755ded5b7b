"""The agent's hands: crun, conmon, cgroups, files."""
