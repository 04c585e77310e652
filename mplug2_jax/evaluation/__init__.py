"""A config's evaluations: run, their records, and the page that shows them."""
