"""Old import paths, which go on working with a `DeprecationWarning`.

`MODULES` and `NAMES` say where a module, or a name of a package, was and where it is; `RENAMED`
says what a name is now called. A module that has moved is found by a finder at the end of
`sys.meta_path`, which makes a module whose attributes are those of the new one; a package that has
given up names asks `forward` for them.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable
from typing import Any

_ROOMS = {  # (old package, new package): modules of the same name
    ("analysis", "costs"): "counting energy hardware measuring modules primitives sparsity"
    " storage summary summary_text",
    ("analysis", "figures"): "distributions features heatmaps page panels plots report tables",
    ("analysis", "series"): "alarms anomaly_likelihood nab",
    ("data", "files"): "state_dicts",
    ("data", "sequences"): "algorithmic_tasks corpora episode_scores java text",
    ("data", "series"): "following hdfs log_transformation logs normalisers records rows tables"
    " templates transformation",
    ("data", "vision"): "augment transforms",
    ("data", "vision.datasets"): "cifar dataset digits mnist sources tfds",
    ("deployment", "files"): "container packing",
    ("deployment", "models"): "saved_models",
    ("deployment", "sequences"): "generation",
    ("deployment", "series"): "log_detector series_detector",
    ("models", "classics"): "autoencoder mlp",
    ("models", "files"): "borrowing",
    ("models", "sequences"): "ntm recurrent_net",
    ("models", "series"): "next_event next_value",
    ("models", "vision"): "alexnet cifar_resnet googlenet inception inception_v3 lenet"
    " lenet_original plain_net resnet small_cnn squeezenet vgg vgg_small",
    ("ops", "sequences"): "addressing",
    ("training", "runs"): "checkpoints environment hosts progress run_folder script signals",
}
COMMANDS = ("generate", "summary", "watch")

MODULES = {
    f"nnlab.{old}.{name}": f"nnlab.{new}.{name}"
    for (old, new), names in _ROOMS.items()
    for name in names.split()
}
MODULES |= {
    "nnlab.analysis.costs": "nnlab.costs.summary",
    "nnlab.data.nab": "nnlab.series.nab_corpus",
    "nnlab.deployment.detection": "nnlab.series.detector",
    "nnlab.deployment.standing": "nnlab.series.watch_state",
    **{
        f"nnlab.layers.{name}": "nnlab.layers.activations"
        for name in ("maxout", "pooling", "power", "swish")
    },
    "nnlab.ops.indexed_pooling": "nnlab.ops.pooling",
    "nnlab.ops.pyramid_pooling": "nnlab.ops.adaptive_pooling",
    "nnlab.ops.stochastic_pooling": "nnlab.ops.pooling",
    "nnlab.training.loop": "nnlab.runs.fit",
}
MODULES |= {
    f"nnlab.arithmetics.{name}": "nnlab.arithmetics"
    for name in ("adder", "arithmetic", "binary", "formats", "shift")
}
MODULES |= {
    f"nnlab.layers.{name}": "nnlab.layers.product"
    for name in ("adder", "binary", "convolution", "lp_adder", "shift", "shift_add")
}
MODULES |= {f"nnlab.{name}": f"nnlab.commands.{name}" for name in COMMANDS}
PACKAGES = ("nnlab.analysis",)  # which are gone

_NAMES = {  # (old package, where they are): names
    ("analysis", "costs"): "Counts Mass SparseLayer count energy expected_mass_removed"
    " inference_costs mass_removed sparse_counts stored_bytes",
    ("analysis", "figures"): "Fit Fits Geometry Plane Separation class_geometry class_plane"
    " fit_weights markdown_table print_table",
    ("data", "files"): "read_state_dict",
    ("data", "series"): "Event Keys Log LogTransformation Malformed MinMax OneHot Robust Row"
    " Standardize Table Templates TimeOfDay TimeOfWeek Transformation Windows csv_rows"
    " fit_transformation json_rows load_hdfs log_rows mine_templates next_event_windows read_csv"
    " read_json_lines read_log sessions_by_name windows",
    ("data", "vision"): "Dataset Records Split Whitening channel_statistics check_arrays"
    " decorrelate fit_whitening load pad_to pca_whiten random_crop random_crop_and_flip random_flip"
    " record_source record_statistics standardize standardized standardizer to_float zca_whiten",
    ("deployment", "files"): "SavedModel",
    ("deployment", "models"): "load_model save_model",
    ("deployment", "series"): "LogDetector SeriesDetector",
    ("models", "series.next_event"): "ranks",
    ("training", "runs"): "RunFolder best_accuracy fit hardware least_loss provenance restore save"
    " versions",
}
NAMES = {
    (f"nnlab.{old}", name): f"nnlab.{new}"
    for (old, new), names in _NAMES.items()
    for name in names.split()
}

_RENAMED = {  # old module: old and new names
    "deployment.detection": "Judgment LineScore Kept SavedMemory",
    "deployment.generation": "begin prefill proceed decode",
    "deployment.series_detector": "begin init",
    "deployment.standing": "Standing WatchState standing_path watch_state_path save_standing"
    " save_watch_state load_standing load_watch_state",
}
RENAMED = {
    (f"nnlab.{old}", before): after
    for old, names in _RENAMED.items()
    for before, after in zip(names.split()[::2], names.split()[1::2], strict=True)
}


def forward(old: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of the module `old`, which finds names where they are now."""

    def getattribute(name: str) -> Any:
        new = NAMES.get((old, name)) or MODULES.get(old)
        if new is None or name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        now = RENAMED.get((old, name), name)
        value = getattr(importlib.import_module(new), now)
        warnings.warn(f"{old}.{name} is now {new}.{now}", DeprecationWarning, stacklevel=2)
        return value

    return getattribute


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname in MODULES or fullname in PACKAGES:
            # The origin is `sys.argv[0]` under `python -m`, which JAX expects to be a text.
            return importlib.util.spec_from_loader(
                fullname, self, origin=fullname, is_package=fullname in PACKAGES
            )
        return None

    def is_package(self, fullname: str) -> bool:
        return fullname in PACKAGES

    def get_source(self, fullname: str) -> str:
        source = f"from nnlab._moved import forward\n__getattr__ = forward({fullname!r})\n"
        if fullname.removeprefix("nnlab.") in COMMANDS:  # as python -m nnlab.watch
            source += "if __name__ == '__main__':\n    import runpy\n"
            source += f"    runpy.run_module({MODULES[fullname]!r}, run_name='__main__')\n"
        return source


def install() -> None:
    """Lets old modules be found; once a process, after all other ways to find a module."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
