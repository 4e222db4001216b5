"""The keyed queue and the loop, and the ports that a cluster implements."""
