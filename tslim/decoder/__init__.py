"""From features to colours: ``decoder.py`` is what a field has, the others are ways to compute its MLP.

``mlp_taichi.py`` runs it on GPUs; ``mlp_blas.py`` on the CPU, and ``mlp_bfloat16.py`` in half the width: both by tiles
of samples (``mlp_tiles.py``), which ``blas.py`` hands to threads.
"""
