"""What processes do that read tiles (`base/process/workers.py`): they import little."""
