"""Checkpoints: written while training goes on, restored onto any mesh, loaded by module."""
