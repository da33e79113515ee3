"""Rewrites that bring a recorded graph to the form in which mappers expect it."""

from __future__ import annotations

from hwsim.graph import Graph


def normalised(graph: Graph) -> Graph:
    """``graph`` after all rewrites."""
    return graph
