"""Speed and memory beside a floor or the published way, in one run; ``make bench`` prints the table."""
