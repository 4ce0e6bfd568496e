"""Natalog: a temporal Datalog database that runs as actors on NATS."""
