"""Posed images: cameras, lenses, camera paths and the space that they show. Plain numpy."""
