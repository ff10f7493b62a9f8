"""SST-2: sentences of film reviews and parts of them, negative (0) or positive (1).

The form is GLUE's, two `.tsv` files: 67,349 texts to train on, of which 55.78 % are positive, and
872 whole sentences to develop with, of which 444, 50.92 %, are. The labels of GLUE's test set are
not public, and everyone reports those 872.

References:
    Socher et al., Recursive deep models for semantic compositionality over a sentiment treebank,
    2013; Wang et al., GLUE, 2018, https://arxiv.org/abs/1804.07461.
"""

import os
from typing import NamedTuple

from nnlab.data.locate import Source, locate
from nnlab.sequences.text_files import Table, read_table

SST2 = Source(
    name="sst2",
    folders=("sst2", "SST-2", "glue_data/SST-2"),
    file_sets=(("train.tsv", "dev.tsv"),),
    mirrors=("https://raw.githubusercontent.com/F0restL1n/BERT/HEAD/glue_data/SST-2/",),
    md5={
        "train.tsv": "da409a0a939379ed32a470bc0f7fe99a",
        "dev.tsv": "268856b487b2a31a28c0a93daaff7288",
    },
)
COLUMNS = ("sentence", "label")


class Sst2(NamedTuple):
    """The two files, with the columns "sentence" and "label"."""

    train: Table
    dev: Table


def load_sst2(data_dir: str | os.PathLike[str] | None = None) -> Sst2:
    """Read SST-2; download it into the cache if it is nowhere.

    Args:
        data_dir: where to look; by default it is found or downloaded.

    Raises:
        InputError: it cannot be found, downloaded or read.
    """
    return Sst2(*(read_table(path, COLUMNS) for path in locate(SST2, data_dir)))
