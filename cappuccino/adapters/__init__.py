"""Rim: libraries and services behind ports. Adapters do not import each other."""
