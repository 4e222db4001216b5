"""The batched environment, PPO and export: the only package with torch.

`observation` says what a policy sees, `environment` is the market, `networks` the policies, `ppo` the algorithm,
`learning` trains one policy from bars to weights, `export` turns it into what a bundle holds.
"""
