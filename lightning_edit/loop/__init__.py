"""The updates of a run, without a trainer: what waits, what is written, and where a stopped run goes on."""
