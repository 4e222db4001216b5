"""Alpaca, through alpaca-py and nothing else; the simulated exchange speaks the same protocol."""
