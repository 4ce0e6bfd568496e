"""Readers that turn outside data into transactions: git histories, JSON lines, CSV and EDN."""
