"""A multilayer perceptron of any depth, by default with what makes a deep network train.

`depth` hidden layers of `width` units, each followed by BatchNorm, activation and dropout, and a
classifier with a bias. Hidden layers have a bias only without BatchNorm. For images of s numbers
with BatchNorm there are s·width + (depth - 1)·width² + 2·depth·width + (width + 1)·classes
parameters: 218,378 for MNIST, and 216,320 multiply-adds in its layers.

The defaults, together with `nnlab.optim.deep_recipe`, are the usual cures for what is wrong with a
deep network; `experiments/optimisers/vanishing_gradients.py` measures each:

- ReLU (the activation of float arithmetic) has a slope of 1 for half of the inputs. A sigmoid's
  slope is at most 1/4, so gradients shrink by that factor with every layer, and it is flat for
  inputs of a few units.
- He's initialisation, variance 2 / inputs (that of float layers), keeps the size of activations and
  gradients through ReLU layers. Xavier's, 2 / (inputs + outputs), is for activations with a slope
  of 1 around 0, such as tanh.
- BatchNorm gives every layer inputs of one size, whatever the weights have become. Adder layers
  need it, as their outputs lie near minus the number of their inputs; many in a row need a wider
  initialisation too, see `nnlab.layers.initializers`.
- Clipping and Adam: see the recipe.

References:
    Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks,
    AISTATS 2010; He et al., Delving deep into rectifiers, ICCV 2015,
    https://arxiv.org/abs/1502.01852; Ioffe & Szegedy, Batch normalization, ICML 2015,
    https://arxiv.org/abs/1502.03167.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network


class MLP(Network):
    """Map inputs of any shape [batch, …] to logits [batch, classes].

    All layers use `arithmetic`, except the first and the classifier, which use `first` and
    `classifier` (float by default). `activation` and `kernel_init`, the initialisation in all
    layers, are the arithmetic's unless given. `dropout` is a rate; its draws come from the stream
    "dropout".

    `dtype` is the dtype of the computation, by default that of images and parameters together;
    parameters, running statistics and logits are always float32. With `axis_name`, BatchNorm takes
    the batches of all devices along that mapped axis as one; by default each device normalises its
    own.

    Raises:
        InputError: `depth` or `width` is below 1.
    """

    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    depth: int = 8
    width: int = 128
    activation: Callable[[jax.Array], jax.Array] | None = None
    kernel_init: Initializer | None = None
    norm: bool = True
    dropout: float = 0.0
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        start = {} if self.kernel_init is None else {"kernel_init": self.kernel_init}
        options = {"dtype": self.dtype, **start}
        activation = self.activation or self.arithmetic.activation
        x = lax.collapse(x, 1)
        for number in range(1, self.depth + 1):
            layers = self.first if number == 1 else self.arithmetic
            name = f"dense{number}"
            x = layers.dense(self.width, use_bias=not self.norm, name=name, **options)(x)
            if self.norm:
                x = batch_norm(train, self.dtype, self.axis_name, name=f"bn{number}")(x)
            x = activation(x)
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{number}")(x)
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, use_bias=True, name="classifier", **options)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
