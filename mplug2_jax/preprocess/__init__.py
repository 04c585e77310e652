"""Bytes and strings to arrays: what inference needs as well as training."""
