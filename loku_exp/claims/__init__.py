"""Claims that were registered before their runs, and what the runs say of them."""
