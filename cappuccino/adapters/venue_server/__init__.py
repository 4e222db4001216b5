"""The simulated exchange over HTTP: Alpaca's trading REST, crypto data REST and both websocket streams, and its own control."""
