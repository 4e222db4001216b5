"""The processes, and the wiring of adapters into them."""
