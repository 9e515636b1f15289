"""Pages that open without a network: the report of one evaluation, and the comparison of several."""
