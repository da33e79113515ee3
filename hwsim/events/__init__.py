"""The event engine: kernels and transfers of a schedule on the shared resources of a system."""
