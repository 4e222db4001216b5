"""Environment, PPO, checkpoints, export: the only place with torch."""
