"""Probes: what frozen vectors of lists know, asked by small classifiers and by search."""
