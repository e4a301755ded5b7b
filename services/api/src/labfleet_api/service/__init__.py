"""The routes, and what drives them."""
