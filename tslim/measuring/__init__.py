"""How good a field is: metrics, tables by rank, plots."""
