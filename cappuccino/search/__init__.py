"""The search space and the sampler port."""
