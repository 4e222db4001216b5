"""What limits a position: sizing, barriers, limits, and the breaker. Pure.

`sizing` and `barriers` are written against the array interface that NumPy and torch share: the
training environment, the backtest and the trader call the very same functions (`xp` is the module).
"""
