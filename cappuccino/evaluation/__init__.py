"""What a strategy is worth: metrics, backtest, splits, overfitting statistics, gates, grade. Pure."""
