"""What the partials cost, against code written by hand and against the usual ways: `python -m benchmarks`."""
