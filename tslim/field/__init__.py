"""The radiance field on the device: its factors, basis and empty space."""
