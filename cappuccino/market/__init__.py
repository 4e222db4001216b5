"""Bars and what is computed from them alone: sources, store, quality, resampling, features, generator."""
