"""From rays to pixels, and back to gradients: the pipeline and what renders with it."""
