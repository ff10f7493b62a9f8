// The page: controls, the loop of frames, and what they change.

const $ = (id) => document.getElementById(id);
const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const PENALTIES = [0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
const PACES = [1, 2, 5, 10, 20, 50, 100];
const NICE = { x1: "x₁", x2: "x₂", "x1^2": "x₁²", "x2^2": "x₂²", x1x2: "x₁x₂", sin2x1: "sin 2x₁", sin2x2: "sin 2x₂" };

const page = {
  ...{ running: false, selected: { layer: 0, unit: 0, input: 0 }, pen: -1, history: [], frames: 0 },
  ...{ extra: { ...EXTRA }, hidden: [], grid: gridPoints() },
};

function begin() {
  const read = readAddress(location.hash.slice(1));
  page.extra = read.extra;
  page.hidden = read.hidden;
  page.lesson = new Lesson(read.settings, read.own);
  for (const panel of PANELS) $("panel-" + panel).classList.toggle("hidden", read.hidden.includes(panel));
  page.colours = readColours();
  page.hand ??= new Hand($("hand"));
  build();
  say(read.problem);
}

function say(text) {
  $("message").textContent = text;
}

// --- Changes -----------------------------------------------------------------------------------

/** Change settings. What needs no new network keeps it. */
function change(patch) {
  const { lesson } = page;
  const before = lesson.settings;
  const settings = { ...before, ...patch };
  if (settings.data !== before.data && isRegression(settings)) settings.loss = "squared";
  if (settings.loss === "cross_entropy" && isRegression(settings)) {
    say("A regression has no classes, so its loss stays squared.");
    settings.loss = "squared";
  }
  const problem = wrongSetting(settings);
  if (problem) {
    say(`Nothing was changed: ${problem}.`);
    build();
    return;
  }
  say("");
  const differs = (...names) =>
    names.some((name) => JSON.stringify(settings[name]) !== JSON.stringify(before[name]));
  lesson.settings = settings;
  const units = (list) => list.map((layer) => layer.units).join();
  const shape = differs("inputs", "seed") || outputsOf(settings) !== outputsOf(before) ||
    units(settings.layers) !== units(before.layers);
  const points = differs("data", "classes", "noise", "points", "share", "seed", "inputs", "output");
  if (points) lesson.setData();
  if (shape) {
    lesson.rewind();
    page.history = [];
  } else if (differs("layers", "last", "output", "norm")) {
    convert(lesson, before);
  } else if (differs("optimizer")) {
    lesson.layers.forEach((layer) => forgetSteps(layer, settings.optimizer));
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
  const classes = Math.max(page.lesson.settings.classes, ...own.map((point) => point[2] + 1));
  page.lesson.own = own;
  change({ data: "own", classes });
  page.lesson.setData(own);
  build();
}

// --- Frames ------------------------------------------------------------------------------------

function run(on) {
  const ended = page.running && !on;
  page.running = on;
  $("run").textContent = on ? "❚❚ Pause" : "▶ Train";
  cancelAnimationFrame(page.next);
  if (on) page.next = requestAnimationFrame(frame);
  if (ended) drawNumbers();
}

function frame() {
  train(page.extra.pace);
  draw();
  page.frames++;
  if (page.running) page.next = requestAnimationFrame(frame);
}

function train(steps) {
  const { lesson } = page;
  for (let k = 0; k < steps; k++) {
    if (page.extra.stop && lesson.epoch >= page.extra.stop) {
      run(false);
      say(`Stopped after epoch ${lesson.epoch}, as asked.`);
      return;
    }
    if (!lesson.trainStep()) {
      run(false);
      say(lesson.problem || "There are no points to train on.");
      return;
    }
  }
}

function oneStep() {
  run(false);
  train(1);
  draw();
}

function oneBack() {
  run(false);
  if (!page.lesson.stepBack()) say("There is no step to take back.");
  else say("");
  page.history = page.history.filter((entry) => entry.step <= page.lesson.step);
  draw();
}

function rewind() {
  run(false);
  page.lesson.rewind();
  page.history = [];
  say("");
  draw();
}

/** Everything that changes with the weights. */
function draw() {
  const { lesson, colours, grid } = page;
  const { settings, layers } = lesson;
  const count = grid.length / 2;
  page.gridInputs ??= inputsOf(settings, grid);
  const values = forward(layers, page.gridInputs, count);
  values.forEach(({ a }, k) => {
    const boxes = page.columns[k + 1];
    const scale = ["tanh", "sigmoid", "hard_tanh"].includes(layers[k].activation) ? 1 : 0;
    boxes.forEach((box, unit) => {
      drawUnit(box.firstChild, a, unit, layers[k].fanOut, colours, scale);
    });
  });
  const outputs = values[values.length - 1].a;
  const wide = outputsOf(settings);
  const probabilities = sharesOf(settings, outputs, count);
  page.values = { outputs, probabilities, layers: values };
  const shown = page.hover;
  if (shown) drawUnit($("map"), values[shown.layer].a, shown.unit, layers[shown.layer].fanOut, colours);
  else drawOutput($("map"), outputs, probabilities, wide, colours, page.extra.sharp);
  drawLinks($("links"), layers, colours);
  $("epoch").textContent = lesson.epoch;
  $("count").textContent = lesson.step;
  if (!page.running || page.frames % 5 === 0) drawNumbers();
}

/** What is read and need not follow every frame: scores, curve and panels. */
function drawNumbers() {
  const { lesson, colours } = page;
  const [onTrain, onTest] = [lesson.measure(lesson.train), lesson.measure(lesson.test)];
  record(onTrain, onTest);
  drawCurve($("curve"), page.history, colours);
  nameDead();
  const score = (name, { loss, accuracy }) =>
    loss === null ? "" : `${name}: loss ${loss.toFixed(4)}` + (accuracy === null ? "" : `, ${accuracy.toFixed(1)} % right`);
  $("scores").textContent = [score("training", onTrain), score("test (dashed)", onTest)].filter(Boolean).join(" · ");
  drawUnitPanel($("unit"), lesson, page.selected, setWeight);
  drawRulePanel($("rule"), lesson, { ...page.selected, ...page.hover }, colours);
}

/** How much of each class the outputs are: probabilities, or outputs cut off at 0 and 1. */
function sharesOf(settings, outputs, count) {
  if (settings.loss === "cross_entropy") return lab.softmax(count, outputsOf(settings), outputs)[0];
  const low = lowTarget(settings);
  return outputs.map((value) => Math.max(0, Math.min(1, (value - low) / (1 - low))));
}

function record(onTrain, onTest) {
  const { history, lesson } = page;
  const entry = { step: lesson.step, train: onTrain.loss, test: onTest.loss };
  if (history.length && history[history.length - 1].step === entry.step) history.pop();
  history.push(entry);
  if (history.length > 600) page.history = history.filter((_, k) => k % 2 === 0);
}

/** Mark units that give the same for every training point, and say which. */
function nameDead() {
  const { lesson } = page;
  if (!lesson.train.count) return;
  const values = forward(lesson.layers, lesson.train.inputs, lesson.train.count);
  const dead = [];
  values.slice(0, -1).forEach(({ a }, k) => {
    const wide = lesson.layers[k].fanOut;
    for (let unit = 0; unit < wide; unit++) {
      let constant = true;
      for (let p = unit; p < a.length && constant; p += wide) constant = a[p] === a[unit];
      page.columns[k + 1][unit].classList.toggle("dead", constant);
      if (constant) dead.push(`unit ${unit + 1} of layer ${k + 1}`);
    }
  });
  $("about").textContent = dead.length
    ? `Dead: ${dead.join(", ")}, the same number for every training point.`
    : "Boxes show a unit over the plane. Lines are weights: width the size, dashes and orange positive, blue negative.";
}

// --- Building ----------------------------------------------------------------------------------

function options(select, entries, value) {
  select.innerHTML = "";
  for (const [key, text] of entries) select.add(new Option(text, key));
  select.value = String(value);
}

const same = (names) => names.map((name) => [name, String(name).replaceAll("_", " ")]);

/** Set all controls to the settings, and draw the network's frame. */
function build() {
  const { settings } = page.lesson;
  page.gridInputs = null;
  options($("data"), same(TABLES.data.filter((name) => name !== "own" || page.lesson.own.length)), settings.data);
  options($("classes"), same([2, 3, 4]), settings.classes);
  $("classes").disabled = isRegression(settings);
  for (const name of ["noise", "points", "share", "seed", "batch"]) $(name).value = settings[name];
  for (const name of ["noise", "points"]) $(name).disabled = settings.data === "own";
  $("noise-out").textContent = settings.noise + " %";
  $("share-out").textContent = settings.share + " %";
  options($("loss"), [["cross_entropy", "cross-entropy"], ["squared", "squared"]], settings.loss);
  options($("optimizer"), [["sgd", "SGD"], ["momentum", "momentum"], ["rmsprop", "RMSProp"], ["adam", "Adam"]], settings.optimizer);
  const among = (list, value) => same([...new Set([...list, value])].sort((a, b) => a - b));
  options($("rate"), among(RATES, settings.rate), settings.rate);
  options($("l1"), among(PENALTIES, settings.l1), settings.l1);
  options($("l2"), among(PENALTIES, settings.l2), settings.l2);
  options($("pace"), among(PACES, page.extra.pace), page.extra.pace);
  $("stop").value = page.extra.stop || "";
  $("norm").checked = settings.norm;
  $("show-test").checked = Boolean(page.extra.test);
  $("sharp").checked = Boolean(page.extra.sharp);
  const used = new Set(settings.layers.map((layer) => layer.arithmetic));
  const mixed = used.size > 1 ? [["", "mixed"]] : [];
  options($("everywhere"), [...mixed, ...same(Object.keys(TABLES.arithmetics))], used.size > 1 ? "" : [...used][0] ?? "");
  buildPen();
  buildNetwork();
  const { parameters, bits, totals } = costsOf(page.lesson.layers);
  const [mul, add, bit, energy] = totals;
  const round = (x) => Math.round(x).toLocaleString("en");
  $("costs").textContent =
    `${parameters} parameters, ${round(bits)} bits at rest. One answer takes ${round(mul)} multiplications, ` +
    `${round(add)} additions and ${round(bit)} bit operations: ${energy.toFixed(1)} pJ at 45 nm, activation functions aside.`;
  drawDots();
  draw();
  writeHash();
}

function buildPen() {
  const { settings } = page.lesson;
  const box = $("pen");
  const labels = [-1, ...Array.from({ length: Math.min(4, settings.classes + 1) }, (_, k) => k)];
  box.querySelectorAll("label").forEach((label) => label.remove());
  for (const value of labels) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "pen", value, checked: page.pen === value });
    input.addEventListener("change", () => (page.pen = value));
    label.append(input, value < 0 ? "none" : String(value));
    if (value >= 0) label.style.color = page.colours.names[value];
    box.append(label);
  }
}

function buildNetwork() {
  const { settings, layers } = page.lesson;
  const network = $("network");
  network.querySelectorAll(".layer").forEach((column) => column.remove());
  page.columns = [];
  const first = column(`<b>inputs</b>`);
  const inputs = [];
  for (const name of TABLES.features) {
    const on = settings.inputs.includes(name);
    const line = document.createElement("div");
    line.className = "input";
    line.innerHTML = `<span>${NICE[name]}</span>`;
    const box = unitBox(`input ${NICE[name]}, ${on ? "used" : "not used"}`);
    box.classList.toggle("off", !on);
    box.setAttribute("aria-pressed", "false");
    box.addEventListener("click", () => {
      const chosen = TABLES.features.filter((f) => (f === name) !== settings.inputs.includes(f));
      change({ inputs: chosen });
    });
    line.append(box);
    first.append(line);
    const at = TABLES.features.indexOf(name);
    const [all] = lab.features(GRID * GRID, page.grid);
    drawUnit(box.firstChild, all.subarray(at * GRID * GRID), 0, 1, page.colours);
    if (on) inputs.push(box);
  }
  page.columns.push(inputs);
  layers.forEach((layer, k) => {
    const hidden = k < settings.layers.length;
    const box = column(hidden ? `<b>layer ${k + 1}</b>` : "<b>output</b>");
    const head = box.firstChild;
    head.append(
      choice(`arithmetic of layer ${k + 1}`, Object.keys(TABLES.arithmetics), layer.arithmetic, (name) =>
        hidden ? changeLayer(k, { arithmetic: name }) : change({ last: name })),
      choice(`activation of layer ${k + 1}`, Object.keys(TABLES.activations), layer.activation, (name) =>
        hidden ? changeLayer(k, { activation: name }) : change({ output: name })),
    );
    if (hidden) {
      const row = document.createElement("div");
      row.append(
        button("−", `one unit less in layer ${k + 1}`, () => changeLayer(k, { units: layer.fanOut - 1 })),
        ` ${layer.fanOut} `,
        button("+", `one unit more in layer ${k + 1}`, () => changeLayer(k, { units: layer.fanOut + 1 })),
        button("×", `remove layer ${k + 1}`, () => change({ layers: settings.layers.filter((_, j) => j !== k) })),
      );
      head.append(row);
      if (layer.normed) head.append("BatchNorm");
    }
    const boxes = Array.from({ length: layer.fanOut }, (_, unit) => {
      const node = unitBox(`unit ${unit + 1} of ${hidden ? "layer " + (k + 1) : "the output"}`);
      const chosen = page.selected.layer === k && page.selected.unit === unit;
      node.setAttribute("aria-pressed", String(chosen));
      node.addEventListener("click", () => select(k, unit));
      const hover = (on) => {
        page.hover = on ? { layer: k, unit } : null;
        if (!page.running) draw();
      };
      node.addEventListener("pointerenter", () => hover(true));
      node.addEventListener("pointerleave", () => hover(false));
      box.append(node);
      return node;
    });
    page.columns.push(boxes);
  });
  const last = page.columns.length - 2;
  if (page.selected.layer > last || page.selected.unit >= layers[page.selected.layer].fanOut) {
    select(0, 0, false);
  }
  placeLinks($("links"), page.columns, layers);
}

function select(layer, unit, redraw = true) {
  page.selected = { layer, unit, input: 0 };
  page.columns.slice(1).forEach((boxes, k) =>
    boxes.forEach((box, u) => box.setAttribute("aria-pressed", String(k === layer && u === unit))),
  );
  if (redraw) draw();
}

function column(title) {
  const element = document.createElement("div");
  element.className = "layer";
  element.innerHTML = `<div class="head">${title}</div>`;
  $("network").append(element);
  return element;
}

function unitBox(label) {
  const box = document.createElement("button");
  box.className = "node";
  box.setAttribute("aria-label", label);
  box.title = label;
  box.innerHTML = `<canvas width="${GRID}" height="${GRID}"></canvas>`;
  return box;
}

function button(text, label, action) {
  const element = document.createElement("button");
  element.textContent = text;
  element.setAttribute("aria-label", label);
  element.title = label;
  element.addEventListener("click", action);
  return element;
}

function choice(label, names, value, action) {
  const element = document.createElement("select");
  element.setAttribute("aria-label", label);
  options(element, same(names), value);
  element.addEventListener("change", () => action(element.value));
  return element;
}

function changeLayer(number, patch) {
  const { layers } = page.lesson.settings;
  change({ layers: layers.map((layer, k) => (k === number ? { ...layer, ...patch } : layer)) });
}

function drawDots() {
  const { lesson, colours, extra } = page;
  const parts = [{ part: lesson.train, filled: true }];
  if (extra.test) parts.push({ part: lesson.test, filled: false });
  drawPoints2d($("dots"), parts, isRegression(lesson.settings), colours);
}

function writeHash() {
  const { lesson, extra, hidden } = page;
  const text = writeAddress(lesson.settings, lesson.own, extra, hidden);
  page.address = text;
  history.replaceState(null, "", "#" + text);
}

// --- Wiring ------------------------------------------------------------------------------------

function wire() {
  const on = (id, event, action) => $(id).addEventListener(event, action);
  on("run", "click", () => run(!page.running));
  on("step", "click", oneStep);
  on("back", "click", oneBack);
  on("rewind", "click", rewind);
  on("pace", "change", () => { page.extra.pace = Number($("pace").value); writeHash(); });
  on("stop", "change", () => { page.extra.stop = Math.max(0, Math.floor(Number($("stop").value)) || 0); writeHash(); });
  for (const id of ["data", "loss", "optimizer"]) on(id, "change", () => change({ [id]: $(id).value }));
  for (const id of ["classes", "noise", "share", "rate", "l1", "l2"]) {
    on(id, "change", () => change({ [id]: Number($(id).value) }));
  }
  for (const id of ["points", "seed", "batch"]) {
    on(id, "change", () => change({ [id]: $(id).value === "" ? NaN : Number($(id).value) }));
  }
  on("reseed", "click", () => change({ seed: Math.floor(Math.random() * 10000) }));
  on("norm", "change", () => change({ norm: $("norm").checked }));
  on("everywhere", "change", everywhere);
  on("add-layer", "click", () => {
    const { layers } = page.lesson.settings;
    const like = layers[layers.length - 1] ?? TABLES.defaults.layers[0];
    change({ layers: [...layers, { ...like, units: Math.min(4, like.units) }] });
  });
  on("show-test", "change", () => { page.extra.test = +$("show-test").checked; drawDots(); writeHash(); });
  on("sharp", "change", () => { page.extra.sharp = +$("sharp").checked; draw(); writeHash(); });
  on("dots", "click", (event) => {
    if (page.pen < 0) return;
    const [x, y] = placeOf(event);
    addPoint(x, y);
  });
  on("dots", "pointermove", readMap);
  on("dots", "pointerleave", () => ($("reading").innerHTML = "&nbsp;"));
  on("csv-take", "click", () => {
    const { points, problem } = readCsv($("csv").value);
    $("csv-message").textContent = problem;
    if (!problem) takeOwn(points);
  });
  on("csv-show", "click", () => {
    const { train, test } = page.lesson;
    const rows = [train, test].flatMap((part) => part.labels.map((label, k) =>
      [part.xy[2 * k].toFixed(3), part.xy[2 * k + 1].toFixed(3), label].join(", ")));
    $("csv").value = ["x, y, class", ...rows].join("\n");
  });
  on("save", "click", save);
  on("load", "change", load);
  on("link", "click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("file-message").textContent = "The link is copied.";
    } catch {
      $("file-message").textContent = "The link is in the address bar.";
    }
  });
  $("rule").addEventListener("change", (event) => {
    page.selected.input = Number(event.target.value);
    draw();
  });
  wireHand(on);
  document.addEventListener("keydown", keys);
  window.addEventListener("resize", () => build());
  window.addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== page.address) { run(false); page.history = []; begin(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    page.colours = readColours();
    build();
  });
}

/** Put all hidden layers into one arithmetic. */
function everywhere() {
  const arithmetic = $("everywhere").value;
  const { layers } = page.lesson.settings;
  // Signs of the two coordinates say little, so models keep the layer before signs in floats.
  const binary = arithmetic === "binary" && layers.length > 1;
  change({ layers: layers.map((l, k) => ({ ...l, arithmetic: binary && !k ? "float" : arithmetic })) });
  if (binary) say("The first layer stays float: a binary layer sees only the signs of its inputs.");
}

function wireHand(on) {
  options($("hand-arithmetic"), same(Object.keys(TABLES.arithmetics)), "float");
  const restart = () => {
    const worked = $("hand-what").value === "worked";
    $("hand-arithmetic").disabled = !worked;
    page.hand.start(worked ? workedLesson($("hand-arithmetic").value) : copiedLesson(page.lesson));
  };
  on("hand-what", "change", restart);
  on("hand-arithmetic", "change", restart);
  on("hand-restart", "click", restart);
  on("hand-next", "click", () => page.hand.next());
  on("hand-back", "click", () => page.hand.back());
  on("hand-all", "click", () => page.hand.whole());
}

function keys(event) {
  const typing = event.target.closest("input, select, textarea, button, summary");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = { " ": () => run(!page.running), ArrowRight: oneStep, ArrowLeft: oneBack, r: rewind, R: rewind };
  const free = !typing || (typing.matches("button") && event.key !== " ");
  if (!(event.key in actions) || !free) return;
  event.preventDefault();
  actions[event.key]();
}

function placeOf(event) {
  const frame = $("dots").getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * 2 * RANGE - RANGE;
  const y = RANGE - ((event.clientY - frame.top) / frame.height) * 2 * RANGE;
  return [x, y].map((value) => Math.max(-RANGE, Math.min(RANGE, +value.toFixed(3))));
}

/** Say what the network answers at the place that is pointed at. */
function readMap(event) {
  const [x, y] = placeOf(event);
  const { settings, layers } = page.lesson;
  const values = forward(layers, inputsOf(settings, Float32Array.of(x, y)), 1);
  const outputs = values[values.length - 1].a;
  const probabilities = sharesOf(settings, outputs, 1);
  const words = isRegression(settings)
    ? show(outputs[0])
    : Array.from(probabilities, (p, k) => `class ${k}: ${(100 * p).toFixed(1)} %`).join(", ");
  $("reading").textContent = `(${x.toFixed(2)}, ${y.toFixed(2)}): ${words}`;
}

function save() {
  const text = JSON.stringify(page.lesson);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `nnlab-${page.lesson.settings.data}-${page.lesson.step}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function load() {
  const [file] = $("load").files;
  if (!file) return;
  try {
    restore(JSON.parse(await file.text()));
    $("file-message").textContent = "";
  } catch (error) {
    $("file-message").textContent = `${file.name} is not a network that this page has saved.`;
  }
  $("load").value = "";
}

/** Go on from what `save` wrote. Raises unless it has every array in its size. */
function restore(saved) {
  if (saved.nnlab_playground !== 1 || wrongSetting(saved.settings)) throw new Error("settings");
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
        typeof part === "number" ? Number(from.state[name][j]) : like(from.state[name][j], part));
    }
    return next;
  });
  Object.assign(lesson, { step: saved.step, epoch: saved.epoch, at: saved.at });
  run(false);
  Object.assign(page, { lesson, history: [] });
  build();
}

wire();
begin();
