"""What tslim is timed against. Not installed, not imported by ``tslim``."""
