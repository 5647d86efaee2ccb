"""The pictures that are made of test images, in the order they are shown in.

Each yields any number of drawings with the names of their files, which start
with its own; none where the model or the data do not allow it.
"""

from __future__ import annotations

from experiments.pictures import generalisation, groups, swaps

PICTURES = {
    'swap': swaps.swaps,
    'generation': groups.generations,
    'interpolation': swaps.interpolations,
    'reconstruction': groups.reconstructions,
    'generalisation': generalisation.generalisations,
    'samples': groups.samples,
}
