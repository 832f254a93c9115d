"""Edits that are kept beside a layer and change no weight: GRACE and MEMOIR."""
