"""What every network of the zoo promises, by tracing alone: nothing is computed.

Its parameters are as many as published, its outputs are float32, and a training step in float or
adders takes the state to one of the same shapes. Deep members of a family are slow tests.
"""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import optax
import pytest

from nnlab import kernels, models, training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.models import ZOO

# Of images of 800 by 1088 pixels, the levels P2 to P7, and the anchors of P2 to P6.
GRIDS = ((200, 272), (100, 136), (50, 68), (25, 34), (13, 17), (7, 9))
ANCHORS = 3 * sum(height * width for height, width in GRIDS[:5])
# {name: (parameters as published or, for our own variants, by the formula in the model's file;
# what one input gives, a shape or several in a list)}
PUBLISHED = {
    "lenet5": (61_942, (10,)),
    "small_cnn": (25_988, (10,)),
    "vgg_small": (4_660_106, (10,)),
    "lenet5_original": (60_000, (10,)),
    "lenet5_full": (61_706, (10,)),
    "mlp": (218_378, (10,)),
    "resnet20": (272_484, (10,)),
    "resnet32": (466_916, (10,)),
    "he_resnet20": (269_722, (10,)),
    "he_resnet32": (464_154, (10,)),
    "he_resnet44": (658_586, (10,)),
    "he_resnet56": (853_018, (10,)),
    "he_resnet110": (1_727_962, (10,)),
    "plain20": (269_722, (10,)),
    "alexnet": (61_100_840, (1000,)),
    "alexnet_original": (60_965_224, (1000,)),
    "alexnet_ungrouped": (62_378_344, (1000,)),
    "vgg11": (132_863_336, (1000,)),
    "vgg11_bn": (132_868_840, (1000,)),
    "vgg13": (133_047_848, (1000,)),
    "vgg13_bn": (133_053_736, (1000,)),
    "vgg16": (138_357_544, (1000,)),
    "vgg16_bn": (138_365_992, (1000,)),
    "vgg19": (143_667_240, (1000,)),
    "vgg19_bn": (143_678_248, (1000,)),
    "googlenet": (6_624_904, (1000,)),
    "googlenet_v1": (6_998_552, (1000,)),
    "inception_v3": (23_834_568, (1000,)),
    "resnet18": (11_689_512, (1000,)),
    "resnet34": (21_797_672, (1000,)),
    "resnet50": (25_557_032, (1000,)),
    "resnet101": (44_549_160, (1000,)),
    "resnet152": (60_192_808, (1000,)),
    "resnext50_32x4d": (25_028_904, (1000,)),
    "resnext101_32x8d": (88_791_336, (1000,)),
    "resnext101_64x4d": (83_455_272, (1000,)),
    "squeezenet1_0": (1_248_424, (1000,)),
    "squeezenet1_1": (1_235_496, (1000,)),
    "deit_tiny": (5_717_416, (1000,)),
    "deit_small": (22_050_664, (1000,)),
    "deit_base": (86_567_656, (1000,)),
    "cifar_deit_tiny": (5_362_762, (10,)),
    "darknet19": (20_842_376, (1000,)),
    "darknet53": (41_609_928, (1000,)),
    "yolo_v1": (197_301_875, (7, 7, 35)),
    "yolo_v1_paper": (271_716_734, (7, 7, 30)),
    "yolo_v1_tiny": (27_095_374, (7, 7, 30)),
    "yolo_v2": (50_655_389, (13, 13, 5, 25)),
    "yolo_v2_tiny": (15_861_773, (13, 13, 5, 25)),
    "yolo_v3": (61_949_149, [(s, s, 3, 85) for s in (13, 26, 52)]),
    "yolo_v3_voc": (61_626_049, [(s, s, 3, 25) for s in (13, 26, 52)]),
    "yolo_v3_tiny": (8_852_366, [(s, s, 3, 85) for s in (13, 26)]),
    "fasterrcnn_resnet50_fpn": (
        41_808_406,
        [(ANCHORS,), *[(ANCHORS, 4)] * 2, (1000, 4), (1000, 91), (1000, 91, 4)],
    ),
    "fcos_resnet50_fpn": (32_322_720, [(*g, width) for width in (91, 4, 1) for g in GRIDS[1:]]),
    "retinanet_resnet50_fpn": (
        34_068_119,
        [(9 * math.prod(g), width) for width in (91, 4, 4) for g in GRIDS[1:]],
    ),
    "dcgan_generator": (3_576_704, (64, 64, 3)),
    "dcgan_critic": (2_765_568, ()),
    "wgan_gp_generator": (1_204_483, (32, 32, 3)),
    "wgan_gp_critic": (1_053_825, ()),
    "sn_gan_generator": (3_812_355, (32, 32, 3)),
    "sn_gan_critic": (2_935_873, ()),
    "autoencoder": (2_008, (32,)),
    "language_model": (279_873, (50, 65)),
    "gpt2": (124_439_808, (1024, 50_257)),
    "nano_gpt": (804_096, (64, 65)),
    "bitnet_2b4t": (2_412_820_480, (64, 128_256)),
    "matmul_free": (374_108_160, (64, 32_000)),
    "minilm_l6": (22_713_986, (2,)),
    "bert_base": (109_483_778, (2,)),
    "recurrent_net": (1_325_064, (41, 8)),
    "ntm": (13_536, (41, 8)),
    "ntm_lstm": (62_536, (41, 8)),
    "next_value": (2_546, (32, 2)),
    "next_event": (54_223, (16,)),
}
DEEP = {
    *("resnet32", "he_resnet32", "he_resnet44", "he_resnet56", "he_resnet110"),
    *("googlenet", "googlenet_v1", "inception_v3"),
    *("fasterrcnn_resnet50_fpn", "fcos_resnet50_fpn", "retinanet_resnet50_fpn"),
    *("deit_tiny", "deit_small", "deit_base", "cifar_deit_tiny", "gpt2", "bitnet_2b4t"),
    *("matmul_free", "minilm_l6", "bert_base"),
    *("darknet19", "darknet53", "yolo_v1", "yolo_v1_paper", "yolo_v2", "yolo_v3", "yolo_v3_voc"),
    *("resnet50", "resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d"),
}
# One network of each class for the training step, those with a depth with less of it.
SHALLOW = {
    models.CifarResNet: {"depth": 8},
    models.PlainNet: {"layers": 1},
    models.ResNet: {"stage_sizes": (1, 1)},
    models.FasterRCNN: {"stage_sizes": (1, 1, 1, 1), "after_nms": (1000, 1000)},
    models.FCOS: {"stage_sizes": (1, 1, 1, 1), "classes": 91, "dialect": "torchvision"},
    models.RetinaNet: {"stage_sizes": (1, 1, 1, 1), "classes": 91},
    models.VisionTransformer: {"layers": 1},
    models.Darknet53: {"blocks": (1, 1)},
    models.YOLOv3: {"blocks": (1,) * 5},
    models.GPT2: {"layers": 1},
    models.Llama: {"layers": 1, "symbols": 128_256},
    models.MatMulFreeLM: {"layers": 2},
    models.BertClassifier: {"layers": 1},
}
FIRST = {entry.kind: name for name, entry in reversed(ZOO.items())}
WIDE = {  # slow to trace
    *("alexnet", "googlenet", "inception_v3", "lenet5_original", "next_event", "plain20"),
    *("darknet19", "darknet53", "yolo_v1", "yolo_v2", "yolo_v2_tiny", "yolo_v3", "yolo_v3_tiny"),
    *("fasterrcnn_resnet50_fpn", "fcos_resnet50_fpn", "retinanet_resnet50_fpn"),
    *("dcgan_critic", "sn_gan_generator", "sn_gan_critic", "wgan_gp_critic"),
    *("bitnet_2b4t", "deit_tiny", "gpt2", "matmul_free", "minilm_l6"),
    *("recurrent_net", "squeezenet1_0", "vgg11", "vgg_small"),
}


@pytest.fixture(autouse=True)
def one_body():
    """Traces nothing for other platforms; all bodies give the same shapes."""
    with kernels.use("cpu"):
        yield


def cases(names, slow):
    return [pytest.param(n, marks=[pytest.mark.slow] if n in slow else []) for n in names]


def size(params):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_every_network_is_in_this_file_and_in_the_face():
    assert ZOO.keys() == PUBLISHED.keys()
    for entry in ZOO.values():
        module = importlib.import_module(entry.kind.__module__)
        names = [name for name, value in vars(module).items() if value is entry.make]
        for name in (*names, entry.kind.__name__):
            assert getattr(models, name) is getattr(module, name)


@pytest.mark.parametrize("name", cases(ZOO, DEEP))
def test_parameters_and_outputs_as_published(name):
    parameters, shape = PUBLISHED[name]
    entry = ZOO[name]
    init = entry.make().init_with_output
    outputs, variables = jax.eval_shape(init, jax.random.key(0), entry.inputs(2))
    assert size(variables["params"]) == parameters
    assert kinds(outputs) == of_two(shape)


def kinds(outputs):
    """Shapes and dtypes of the floats among them; detectors have masks and keys besides."""
    leaves = [_kind(leaf) for leaf in jax.tree.leaves(outputs)]
    return [each for each in leaves if jnp.issubdtype(each[1], jnp.floating)]


def of_two(shape):
    """What two inputs give, where one gives arrays of these shapes."""
    shapes = shape if isinstance(shape, list) else [shape]
    return [((2, *each), jnp.float32) for each in shapes]


@pytest.mark.parametrize("name", cases(FIRST.values(), WIDE))
@pytest.mark.parametrize(
    "arithmetic", [pytest.param(FLOAT, marks=pytest.mark.slow), ADDER], ids=["float", "adder"]
)
def test_a_training_step(name, arithmetic):
    entry, seen = ZOO[name], []
    less = SHALLOW.get(entry.kind)
    make = entry.make if less is None else functools.partial(entry.kind, **less)
    model, optimizer, inputs = make(arithmetic=arithmetic), optax.sgd(0.1), entry.inputs(2)

    def loss(outputs, labels) -> jax.Array:
        seen.append(kinds(outputs))
        leaves = jax.tree.leaves(outputs)
        floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.stack([leaf.mean() for leaf in floats]).sum()

    def run(key, inputs):
        state = training.init(key, model, optimizer, inputs)
        step = training.train_step(model, optimizer, loss, metrics=lambda outputs, labels: {})
        return state, step(state, (inputs, jnp.zeros(2)))

    before, (after, metrics) = jax.eval_shape(run, jax.random.key(0), inputs)
    parameters, shape = PUBLISHED[name]
    assert less or size(before.params) == parameters  # as many in any arithmetic
    assert jax.tree.map(_kind, before) == jax.tree.map(_kind, after)
    assert _kind(metrics["loss"]) == ((), jnp.float32)
    assert seen and all(each == of_two(shape) for each in seen)


def _kind(leaf):
    return leaf.shape, leaf.dtype
