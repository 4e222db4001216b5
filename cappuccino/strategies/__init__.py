"""The strategy interface and what implements it. A strategy decides; engines trade."""
