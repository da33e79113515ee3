"""DRAM: cards of memories, and what they give for an access pattern, by command-level simulation and by formulas."""
