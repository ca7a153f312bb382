"""Drivers that carry frames between neighbouring nodes."""
