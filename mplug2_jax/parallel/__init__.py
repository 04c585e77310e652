"""Meshes, sharding rules, micro-batches and processes: what knows of devices and hosts alone."""
