"""Device code of tslim: kernels that map arrays to arrays, each with its adjoint beside it. Imports taichi only.

Notation, the same in every file
--------------------------------
R, ``max_rank``     ranks that the field has room for; ``rank`` is the active one, run-time data for each ray
m                   mode 0, 1, 2: plane over axes (0, 1), (0, 2), (1, 2) as (u, v), line along axis 2, 1, 0 as w
component           density component k = r, appearance components k = 3 r, 3 r + 1, 3 r + 2 of rank r (from 0)
chunk c             components 16 c .. 16 c + 15 side by side in one arena element; lane = k - 16 c
sample              one point on a ray, at distance t from its origin; delta is the distance to the next one
weight              transmittance times alpha of a sample
used                samples that were looked at before their ray ended
visible             samples whose weight is large enough for a colour
group               visible samples of a ray that share one colour

A step, file by file
--------------------
``pixels``, ``rays``, ``lenses``    which pixels, and their rays
``space``, ``cells``, ``march``     where along a ray samples lie
``vm``, ``density``, ``trace``      density of samples, and their weights
``groups``, ``appearance``          which samples get a colour, and the decoder's features
``decode``, ``composite``, ``loss`` colours, pixels, errors
``penalties``, ``regularize``       what else there is to learn from
``adam``                            the update
``arena``, ``occupancy``            between steps: moving to another grid, measuring empty space

Arguments
---------
Arrays are arguments, one by one. Numbers that belong together travel in a *record* (``types``): a ``Lattice`` says
where the grid lies, a ``Medium`` how features become weights, a ``March`` how rays are marched, and so on, each defined
where it is meant. Grid size, rank and counts are run-time data: nothing is compiled again when they change. What comes
out stands last.

Layout
------
Planes and lines live in an *arena*, one array of vectors of 16 floats for density and one for appearance. With room for
C chunks and a grid (gx, gy, gz):

    plane texel (m, c, v, u)  at  plane_base(m) + c area(m) + v G_u + u,    area = (gx gy, gx gz, gy gz)
    line texel  (m, c, w)     at  line_base(m) + c G_w + w,                 G_w  = (gz, gy, gx)

where a base is C times the texels before: those of planes, mode after mode, and then those of lines. Texels sit on the
corners of the box (``align_corners``).
The basis is a (48 C_a, 27) matrix whose row (3 c + m) 16 + lane belongs to appearance component 16 c + lane of mode m,
so that the first chunks are a contiguous block of rows.

Products are vectors of 16, too. Everything else is a flat array; xyz and rgb triples are stored together. All are numpy
arrays on the CPU and ``ti.ndarray`` elsewhere.

Boxes, grids and densities are in field coordinates, which are the world's unless ``kernels.space`` says otherwise.
World units are those of the data set, cameras are OpenGL (x right, y up, looking down -z), colours sRGB in [0, 1].

Gradients
---------
All are written by hand: Taichi's autodiff is silently wrong for compositing loops and slow for scatter. ``X_backward``
stands beside ``X``; tests hold each against a torch twin and central differences. Scatter into arenas is by atomics on
GPUs (``X_backward_atomic``); on the CPU each thread owns the texels it writes (``X_backward``), which is faster and
repeatable bit by bit. Both are loops around one body.
"""
