"""The workloads, a file for each suite."""
