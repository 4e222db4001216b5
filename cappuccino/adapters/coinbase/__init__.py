"""Coinbase Advanced Trade: REST and tokens through its own SDK, streams over websockets; the simulated exchange speaks the same
protocol."""
