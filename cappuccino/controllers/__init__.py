"""One pure `decide` per kind."""
