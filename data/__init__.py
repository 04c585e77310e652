"""Datasets: raw material -> records -> ArrayRecord on disk -> Grain batches.

The library never imports this package.
"""
