"""Words that every other package shares: errors, time, identity, money."""
