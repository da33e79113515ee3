"""The model zoo: torch modules and request-level programs of memory architectures."""
