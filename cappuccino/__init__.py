"""Cappuccino: a Kubernetes-native factory for crypto trading agents."""
