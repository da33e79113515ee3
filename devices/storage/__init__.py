"""Flash drives: cards, a page-level simulator, formulas beside it."""
