"""Runnable kernels: reference implementation, work formula, benchmark and measurements."""
