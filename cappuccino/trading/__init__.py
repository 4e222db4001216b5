"""Order states, ledger, reconciliation, the trading session; ports Broker and Ledger. Pure but for the ports."""
