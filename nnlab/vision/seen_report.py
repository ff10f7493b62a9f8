"""The section of a report that shows what layers of networks see (`nnlab.figures.seen`)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from nnlab.errors import needs
from nnlab.figures.seeing import map_layers
from nnlab.vision.image_run import Images

_DRAWN = 6  # networks
_CAPTION = (
    "From the top: filters (means over their inputs); their maps of the first test image; the input"
    " between the smallest and the largest pixel that moves the unit in the middle of the map most,"
    " by gradient ascent; and the nine test patches, each of another image, in which the unit"
    " responds most strongly. Each picture has its own range; blue is beside the image."
)
_NOTE = (
    "Responses are those of the layer itself, before its normalisation. One that multiplies grows"
    " with its input; that of an adder layer, minus a distance, is at most 0, which a first layer"
    " reaches where the input is the filter itself."
)


def seen_sections(
    networks: Mapping[str, tuple[nn.Module, Any]], images: Images, seed: int = 0
) -> list[str]:
    """Return the sections about the middle convolution of each network.

    Args:
        networks: model and variables, of the first six of which the layers are drawn.
        images: their test images are looked through.
        seed: of the noise that ascents start in.

    Returns:
        Sections for `nnlab.figures.page.write_page`; none if no network has a convolution.
    """
    with needs("figures"):
        from nnlab.figures import page
        from nnlab.figures.seen import figure_seen, see

    tests, labels = images.test
    found, rows = [], []
    for name, (model, variables) in list(networks.items())[:_DRAWN]:
        layers = map_layers(model, variables, tests[:1])
        if layers and len(tests) >= 9:
            layer = layers[len(layers) // 2]
            seen = see(
                jax.random.key(seed), f"{name}: {layer}", model, variables, layer, tests, labels
            )
            found.append(seen)
            rows.append({"network": name, "layer": layer} | seen.figures)
    if not found:
        return []
    return [
        page.heading("What a layer sees"),
        page.picture(figure_seen(found), "Filters, maps, maximisers and patches", _CAPTION),
        page.table(rows),
        page.paragraph(_NOTE),
    ]
