"""How fast the library is beside the published procedures, both measured in one run: ``python -m tests.benchmarks``."""
