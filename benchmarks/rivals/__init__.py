"""What the streaming step is compared with: one rival a file. See `benchmarks/step_speed.py`."""
