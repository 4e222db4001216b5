"""The cluster of one machine: workloads as supervised processes, and what assembles them with objects and record."""
