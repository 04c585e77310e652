"""Objectives: losses as functions of arrays, and of `call`, which applies the model."""
