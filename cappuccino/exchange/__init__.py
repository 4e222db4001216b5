"""What a venue is, and the simulated one: sizes, fees, accounts, matching, its clock. Pure."""
