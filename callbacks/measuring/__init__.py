"""Callbacks that measure the model before, during and after editing."""
