"""Scores on the host, over records of all hosts: captions, retrieval, answers. No JAX in here."""
