"""Content-addressed folders that are traded: save, load, verify, and from a bundle to a strategy."""
