"""The device: what Taichi runs on, its memory and threads, and what the machine has. Knows nothing of fields."""
