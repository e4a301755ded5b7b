"""The library: an OCI distribution registry and the owner of image metadata."""
