"""Mapping policies: which kernels run where, and what moves between memories."""
