"""The workshop: runs the containers of one host."""
