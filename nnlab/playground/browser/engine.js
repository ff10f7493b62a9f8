// The training loop: puts the printed functions of `lab` together as `nnlab.training.train_step`
// does. No mathematics of layers, losses or optimisers is written here. Nothing here knows the page,
// so that Node can run it as well.

const RANGE = 3; // points lie in [-3, 3]²
const HISTORY = 300; // steps that can be taken back

function indices(count) {
  return Uint32Array.from({ length: count }, (_, k) => k);
}

/** The numbers 0 to count - 1 in random order: sorted by their random words. */
function randomOrder(count, seed, stream) {
  const [word] = lab.random_words(count, indices(count), seed, stream);
  return Array.from(indices(count)).sort((a, b) => word[a] - word[b] || a - b);
}

function outputsOf(settings) {
  return isRegression(settings) ? 1 : settings.classes;
}

function isRegression(settings) {
  return TABLES.regression.includes(settings.data);
}

/** The points of a generated set as [x, y, label], those for training first. */
function drawPoints(settings) {
  const { points: count, seed, classes, noise, data } = settings;
  const index = indices(count);
  const [u, v] = lab.random_uniform(count, index, seed, TABLES.streams.points);
  const [du, dv] = lab.random_uniform(count, index, seed, TABLES.streams.noise);
  const drawn = [u, v, du, dv, count, classes, Math.fround(noise / 100)];
  const [xy, label] = lab[data + "_points"](count, index, ...drawn);
  const order = randomOrder(count, seed, TABLES.streams.split);
  return order.map((k) => [xy[2 * k], xy[2 * k + 1], label[k]]);
}

/** Inputs [n, features] of the network for points [n, 2], one after the other. */
function inputsOf(settings, xy) {
  const count = xy.length / 2;
  const [all] = lab.features(count, xy);
  const chosen = settings.inputs.map((name) => TABLES.features.indexOf(name));
  const inputs = new Float32Array(count * chosen.length);
  for (let k = 0, t = 0; k < count; k++) {
    for (const feature of chosen) inputs[t++] = all[feature * count + k];
  }
  return inputs;
}

/** The target of a class that an example is not of. */
function lowTarget(settings) {
  return ["tanh", "hard_tanh"].includes(settings.output) ? -1 : 0;
}

/** Targets [n, outputs]: one-hot labels (-1 and 1 if the outputs are those of tanh) or numbers. */
function targetsOf(settings, labels) {
  const outputs = outputsOf(settings);
  if (isRegression(settings)) return Float32Array.from(labels);
  const low = lowTarget(settings);
  const targets = new Float32Array(labels.length * outputs).fill(low);
  labels.forEach((label, k) => (targets[k * outputs + label] = 1));
  return targets;
}

function optimizerState(name, size) {
  return TABLES.optimizers[name].map((shape) => {
    if (!shape.startsWith("n")) return 0;
    return new Float32Array(size);
  });
}

function startWeights(arithmetic, fanIn, fanOut, number, seed) {
  const count = fanIn * fanOut;
  const stream = TABLES.streams.weights + number;
  const kernel = TABLES.arithmetics[arithmetic].kernel;
  if (kernel === "adder_kernel") {
    return lab.random_normal(count, indices(count), seed, stream)[0];
  }
  const fan = kernel === "binary_kernel" ? fanIn + fanOut : fanIn;
  const limit = Math.fround(Math.sqrt(6 / fan));
  const [u] = lab.random_uniform(count, indices(count), seed, stream);
  return u.map((x) => Math.fround(Math.fround(2 * x) - 1) * limit);
}

/** One layer at its start. Arrays are `w`, `bias` and, with BatchNorm, `scale`, `mean`, `variance`. */
function startLayer(settings, number, arithmetic, activation, fanIn, fanOut, hidden) {
  const normed = hidden && settings.norm && TABLES.arithmetics[arithmetic].needsNorm;
  const layer = {
    ...{ arithmetic, activation, fanIn, fanOut, normed },
    w:
      settings.start === "zeros"
        ? new Float32Array(fanIn * fanOut)
        : startWeights(arithmetic, fanIn, fanOut, number, settings.seed),
    bias: new Float32Array(fanOut),
  };
  if (normed) {
    layer.scale = new Float32Array(fanOut).fill(1);
    layer.mean = new Float32Array(fanOut);
    layer.variance = new Float32Array(fanOut).fill(1);
  }
  layer.state = {};
  forgetSteps(layer, settings.optimizer);
  return layer;
}

/** Start the optimiser of a layer anew. */
function forgetSteps(layer, optimizer) {
  for (const name of trained(layer)) {
    layer.state[name] = optimizerState(optimizer, layer[name].length);
  }
}

function trained(layer) {
  return layer.normed ? ["w", "scale", "bias"] : ["w", "bias"];
}

function startNetwork(settings) {
  const sizes = [settings.inputs.length, ...settings.layers.map((layer) => layer.units)];
  const layers = settings.layers.map((layer, k) =>
    startLayer(settings, k + 1, layer.arithmetic, layer.activation, sizes[k], sizes[k + 1], true),
  );
  const [fanIn, fanOut] = [sizes[sizes.length - 1], outputsOf(settings)];
  const { last, output } = settings;
  layers.push(startLayer(settings, layers.length + 1, last, output, fanIn, fanOut, false));
  return layers;
}

/** Values of every layer: product `y`, sum `z` before the activation, and activation `a`. */
function forward(layers, x, count, training = false) {
  const values = [];
  for (const layer of layers) {
    const { arithmetic, fanIn, fanOut, w, bias, scale, mean, variance } = layer;
    const [y] = lab[arithmetic + "_product"](count, fanIn, fanOut, x, w);
    const found = { x, y };
    if (!layer.normed) {
      [found.z] = lab.add_bias(count, fanOut, y, bias);
    } else if (training) {
      const norm = lab.norm_train(count, fanOut, y, scale, bias, mean, variance);
      [found.z, found.mean, found.variance] = norm;
    } else {
      [found.z] = lab.norm_eval(count, fanOut, y, scale, bias, mean, variance);
    }
    [found.a] = lab[layer.activation + "_activation"](found.z.length, found.z);
    values.push(found);
    x = found.a;
  }
  return values;
}

/**
 * Loss, and for every layer the delta (cotangent of z), and gradients of what is trained; through
 * BatchNorm by the batch in `training`, else by its running statistics.
 */
function backward(layers, values, targets, count, loss, training = true) {
  const top = layers[layers.length - 1].fanOut;
  const outputs = values[values.length - 1].a;
  const norm = training ? lab.norm_train_cotangents : lab.norm_eval_cotangents;
  let [value, g] = lab[loss + "_gradient"](count, top, outputs, targets);
  const gradients = [];
  for (let k = layers.length - 1; k >= 0; k--) {
    const { arithmetic, fanIn, fanOut, w, bias, scale, mean, variance } = layers[k];
    const { x, y, z } = values[k];
    const found = { sent: g };
    [found.delta] = lab[layers[k].activation + "_cotangent"](z.length, z, g);
    let toProduct = found.delta;
    if (layers[k].normed) {
      const operands = [y, scale, bias, mean, variance, found.delta];
      [toProduct, found.scale, found.bias] = norm(count, fanOut, ...operands);
    } else {
      [found.bias] = lab.bias_cotangent(count, fanOut, found.delta);
    }
    found.product = toProduct;
    [g, found.w] = lab[arithmetic + "_cotangents"](count, fanIn, fanOut, x, w, toProduct);
    gradients[k] = found;
  }
  return { value, gradients };
}

/**
 * New weights and optimiser state of a layer, without changing it. Two settings are of the worked
 * example alone: `fixedBiases`, and `plain` for gradients of adders as they are.
 */
function updated(layer, gradient, settings) {
  const { optimizer, rate, l1, l2 } = settings;
  const next = { ...layer, state: {} };
  const kind = TABLES.arithmetics[layer.arithmetic].kernel;
  for (const name of trained(layer)) {
    const weights = layer[name];
    const size = weights.length;
    let g = gradient[name];
    if (name === "bias" && settings.fixedBiases) {
      next.state[name] = layer.state[name];
      continue;
    }
    if (name === "w") {
      if (l1 || l2) [g] = lab.regularize(size, g, weights, Math.fround(l1), Math.fround(l2));
      if (kind === "adder_kernel" && !settings.plain) [g] = lab.adder_rate(size, g);
    }
    const update = lab[optimizer + "_update"];
    let [u, ...state] = update(size, g, weights, Math.fround(rate), ...layer.state[name]);
    if (name === "w" && kind === "binary_kernel") [u] = lab.clip_latent(size, u, weights);
    [next[name]] = lab.apply_updates(size, weights, u);
    next.state[name] = state;
  }
  return next;
}

/** The first number that is not finite, as words, or "". */
function notFinite(layers, loss) {
  if (!Number.isFinite(loss)) return "the loss";
  for (const [k, layer] of layers.entries()) {
    for (const name of [...trained(layer), ...(layer.normed ? ["mean", "variance"] : [])]) {
      if (!layer[name].every(Number.isFinite)) return `${name} of layer ${k + 1}`;
    }
  }
  return "";
}

/** A network, its data and its place in the training. */
class Lesson {
  constructor(settings, own = []) {
    this.settings = settings;
    this.setData(own);
    this.rewind();
  }

  /** Take the points that the settings name; the network stays. */
  setData(own = this.own) {
    this.own = own;
    const points = this.settings.data === "own" ? own : drawPoints(this.settings);
    const share = Math.max(1, Math.floor((points.length * this.settings.share) / 100));
    this.train = this._part(points.slice(0, share));
    this.test = this._part(points.slice(share));
    this.order = null;
    this.at = 0;
    this.past = []; // what was before, for steps back
  }

  _part(points) {
    const xy = Float32Array.from(points.flatMap(([x, y]) => [x, y]));
    const labels = points.map((point) => point[2]);
    const inputs = points.length ? inputsOf(this.settings, xy) : new Float32Array(0);
    return { count: points.length, xy, labels, inputs, targets: targetsOf(this.settings, labels) };
  }

  /** Back to the weights that the seed gives. */
  rewind() {
    this.layers = startNetwork(this.settings);
    this.step = 0;
    this.epoch = 0;
    this.at = 0; // examples of this epoch that were seen
    this.order = null;
    this.problem = "";
    this.past = [];
  }

  /** The next batch: its numbers in the training set. */
  batch() {
    const { seed, batch } = this.settings;
    this.order ??= randomOrder(this.train.count, seed, TABLES.streams.order + this.epoch);
    return this.order.slice(this.at, this.at + batch);
  }

  /** Inputs and targets of some training examples. */
  examples(chosen) {
    const { inputs, targets, count } = this.train;
    const [wide, high] = [inputs.length / count, targets.length / count];
    const x = new Float32Array(chosen.length * wide);
    const t = new Float32Array(chosen.length * high);
    chosen.forEach((example, k) => {
      x.set(inputs.subarray(example * wide, (example + 1) * wide), k * wide);
      t.set(targets.subarray(example * high, (example + 1) * high), k * high);
    });
    return { x, t };
  }

  /** Train on one batch. A step to a number that is not finite is not taken, and named. */
  trainStep() {
    if (!this.train.count || this.problem) return false;
    const chosen = this.batch();
    const { x, t } = this.examples(chosen);
    const values = forward(this.layers, x, chosen.length, true);
    const loss = this.settings.loss;
    const { value, gradients } = backward(this.layers, values, t, chosen.length, loss);
    const next = this.layers.map((layer, k) => {
      const { mean, variance } = values[k];
      const changed = updated(layer, gradients[k], this.settings);
      return layer.normed ? { ...changed, mean, variance } : changed;
    });
    const bad = notFinite(next, value);
    if (bad) {
      this.problem = `Step ${this.step + 1} was not taken: ${bad} would not be a finite number.`;
      return false;
    }
    const { layers, step, epoch, at, order } = this;
    this.past.push({ layers, step, epoch, at, order });
    if (this.past.length > HISTORY) this.past.shift();
    this.layers = next;
    this.step++;
    this.at += chosen.length;
    if (this.at >= this.train.count) {
      this.epoch++;
      this.at = 0;
      this.order = null;
    }
    return true;
  }

  /** Take the last step back. */
  stepBack() {
    if (!this.past.length) return false;
    Object.assign(this, this.past.pop());
    this.problem = "";
    return true;
  }

  /** Mean loss, and accuracy in percent (null for a regression), of a part of the data. */
  measure(part) {
    if (!part.count) return { loss: null, accuracy: null };
    const values = forward(this.layers, part.inputs, part.count);
    const outputs = values[values.length - 1].a;
    const wide = outputs.length / part.count;
    const [loss] = lab[this.settings.loss + "_loss"](part.count, wide, outputs, part.targets);
    if (isRegression(this.settings)) return { loss, accuracy: null };
    let right = 0;
    part.labels.forEach((label, k) => {
      right += largest(outputs, k * wide, wide) === label;
    });
    return { loss, accuracy: (100 * right) / part.count };
  }

  /** Everything, so that nnlab can train on; see `nnlab.playground.saved`. */
  toJSON() {
    const { settings, step, epoch, at, own } = this;
    const layers = this.layers.map((layer) => {
      const arrays = {};
      for (const name of ["w", "bias", "scale", "mean", "variance"]) {
        if (layer[name]) arrays[name] = Array.from(layer[name]);
      }
      const state = {};
      for (const name of trained(layer)) {
        state[name] = layer.state[name].map((s) => (typeof s === "number" ? s : Array.from(s)));
      }
      return { ...arrays, state };
    });
    return { nnlab_playground: 1, settings, own, step, epoch, at, layers };
  }
}

function largest(numbers, start, count) {
  let best = 0;
  for (let k = 1; k < count; k++) if (numbers[start + k] > numbers[start + best]) best = k;
  return best;
}

/** Parameters, bits at rest, and [multiplications, additions, bit operations, pJ] of an example. */
function costsOf(layers) {
  const totals = [0, 0, 0, 0];
  let [parameters, bits] = [0, 0];
  for (const layer of layers) {
    const { costs, bits: each } = TABLES.arithmetics[layer.arithmetic];
    const { fanIn: i, fanOut: o } = layer;
    costs.forEach(([a, b, c, d], k) => (totals[k] += a + b * i + c * o + d * i * o));
    TABLES.activations[layer.activation].forEach((cost, k) => (totals[k] += cost * o));
    (layer.normed ? TABLES.norm : TABLES.bias).forEach((cost, k) => (totals[k] += cost * o));
    const others = layer.normed ? 4 * o : o;
    parameters += i * o + (layer.normed ? 2 * o : o);
    bits += i * o * each + 32 * others;
  }
  return { parameters, bits, totals };
}
