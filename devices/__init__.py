"""Device families with their cards and calibrations: what a graph can run on."""
