"""Segments: named bytes that snapshots are made of, and where they lie.

A segment is named by its SHA-256, so that equal segments are one and a wrong one is known by its
name.  `store.SegmentStore` is what everybody uses; it lays segments on a `shelf.Shelf`: in memory,
in JetStream, or in a directory or bucket.
"""
