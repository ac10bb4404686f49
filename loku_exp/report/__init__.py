"""Over many finished runs: what is comparable, tables, plots, one page; and two runs in pairs."""
