// What changes the lesson: settings, weights, points, and networks that were saved.

const UNDO = 50; // changes that can be taken back

/** Keep what is there, for `undo`; arrays are replaced and never changed. */
function remember() {
  const { lesson, history, changes } = page;
  const past = lesson.past.slice();
  const copy = Object.assign(Object.create(Lesson.prototype), lesson, { past });
  page.changes = [...changes, { lesson: copy, history: history.slice() }].slice(-UNDO);
}

/** Take the last change of settings, weights or points back, or a rewinding. */
function undo() {
  const before = page.changes.pop();
  run(false);
  if (before) Object.assign(page, before);
  say(before ? "" : "There is no change to take back.");
  build();
}

/** Change settings. What needs no new network keeps it. */
function change(patch, own = page.lesson.own) {
  const { lesson } = page;
  const before = lesson.settings;
  const settings = { ...before, ...patch };
  if (isRegression(settings) && !isRegression(before)) {
    page.lossOfClasses = before.loss;
    settings.loss = "squared";
  } else if (isRegression(before) && !isRegression(settings)) {
    settings.loss = page.lossOfClasses ?? TABLES.defaults.loss;
  }
  const classless = settings.loss === "cross_entropy" && isRegression(settings);
  if (classless) settings.loss = "squared";
  const many = settings.data === "own" ? classesOf(own) : 0;
  const problem =
    wrongSetting(settings) ||
    (settings.classes < many ? `the points are of ${many} classes` : "");
  if (problem) {
    say(`Nothing was changed: ${problem}.`);
    build();
    return;
  }
  say(classless ? "A regression has no classes, so its loss stays squared." : "");
  const differs = (...names) =>
    names.some((name) => JSON.stringify(settings[name]) !== JSON.stringify(before[name]));
  remember();
  lesson.settings = settings;
  const units = (list) => list.map((layer) => layer.units).join();
  const shape =
    differs("inputs", "seed", "start") ||
    outputsOf(settings) !== outputsOf(before) ||
    units(settings.layers) !== units(before.layers);
  const points = own !== lesson.own || differs("data", "classes", "noise", "points", "share", "seed", "inputs", "output");
  if (points) lesson.setData(own);
  if (shape) {
    lesson.rewind();
    page.history = [];
  } else if (differs("layers", "last", "output", "norm")) {
    convert(lesson);
  } else if (differs("optimizer")) {
    lesson.layers = lesson.layers.map((layer) => {
      const fresh = { ...layer, state: {} };
      forgetSteps(fresh, settings.optimizer);
      return fresh;
    });
    lesson.past = [];
  }
  lesson.problem = "";
  build();
}

/** Give layers another arithmetic or activation; weights stay, and the optimiser starts anew. */
function convert(lesson) {
  const fresh = startNetwork(lesson.settings);
  lesson.layers = lesson.layers.map((old, k) => {
    const layer = { ...fresh[k], w: old.w, bias: old.bias };
    if (layer.normed && old.normed) {
      Object.assign(layer, { scale: old.scale, mean: old.mean, variance: old.variance });
    }
    return layer;
  });
  lesson.past = [];
}

function setWeight(layer, name, place, value) {
  const { lesson } = page;
  if (!Number.isFinite(Math.fround(value))) {
    say(`Nothing was changed: ${value} is too large for a weight.`);
    draw();
    return;
  }
  remember();
  const array = lesson.layers[layer][name].slice();
  array[place] = value;
  lesson.layers = lesson.layers.map((l, k) => (k === layer ? { ...l, [name]: array } : l));
  lesson.problem = "";
  draw();
}

function addPoint(x, y) {
  const { lesson } = page;
  const { train, test, settings } = lesson;
  let own = settings.data === "own" ? lesson.own.slice() : [];
  if (settings.data !== "own" && !isRegression(settings)) {
    for (const part of [train, test]) {
      part.labels.forEach((label, k) => own.push([part.xy[2 * k], part.xy[2 * k + 1], label]));
    }
  }
  // Among the points for training, which come first.
  own.unshift([x, y, page.pen]);
  takeOwn(own);
}

/** Make points the data set; the network stays unless there are more classes than before. */
function takeOwn(own) {
  const classes = Math.max(page.lesson.settings.classes, classesOf(own));
  change({ data: "own", classes }, own);
}

/** Go on from what `save` wrote. Raises unless it has every array in its size. */
function restore(saved) {
  saved.settings = { ...defaultSettings(), ...saved.settings };
  const few = saved.settings.data === "own" && saved.settings.classes < classesOf(saved.own);
  if (saved.nnlab_playground !== 1 || few || wrongSetting(saved.settings)) throw new Error("settings");
  const lesson = new Lesson(saved.settings, saved.own);
  const like = (numbers, array) => {
    if (numbers.length !== array.length || !numbers.every(Number.isFinite)) throw new Error("size");
    return Float32Array.from(numbers);
  };
  lesson.layers = lesson.layers.map((layer, k) => {
    const from = saved.layers[k];
    const next = { ...layer, state: {} };
    for (const name of ["w", "bias", "scale", "mean", "variance"]) {
      if (layer[name]) next[name] = like(from[name], layer[name]);
    }
    for (const name of trained(layer)) {
      next.state[name] = layer.state[name].map((part, j) =>
        typeof part === "number" ? Number(from.state[name][j]) : like(from.state[name][j], part),
      );
    }
    return next;
  });
  Object.assign(lesson, { step: saved.step, epoch: saved.epoch, at: saved.at });
  run(false);
  remember();
  Object.assign(page, { lesson, history: [] });
  build();
}
