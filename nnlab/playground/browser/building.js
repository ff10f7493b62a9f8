// The frame of the page as settings have it: controls, layers and their boxes.

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
  options(
    $("data"),
    same(TABLES.data.filter((name) => name !== "own" || page.lesson.own.length)),
    settings.data,
  );
  options($("classes"), same([2, 3, 4]), settings.classes);
  $("classes").disabled = isRegression(settings);
  for (const name of ["noise", "points", "share", "seed", "batch"]) $(name).value = settings[name];
  for (const name of ["noise", "points"]) $(name).disabled = settings.data === "own";
  $("noise-out").textContent = settings.noise + " %";
  const { train, test } = page.lesson;
  $("share-out").textContent =
    `${settings.share} % (${train.count} of ${train.count + test.count})`;
  options(
    $("loss"),
    [
      ["cross_entropy", "cross-entropy"],
      ["squared", "squared"],
    ],
    settings.loss,
  );
  options(
    $("optimizer"),
    [
      ["sgd", "SGD"],
      ["momentum", "momentum"],
      ["rmsprop", "RMSProp"],
      ["adam", "Adam"],
    ],
    settings.optimizer,
  );
  const among = (list, value) => same([...new Set([...list, value])].sort((a, b) => a - b));
  options($("rate"), among(RATES, settings.rate), settings.rate);
  options($("l1"), among(PENALTIES, settings.l1), settings.l1);
  options($("l2"), among(PENALTIES, settings.l2), settings.l2);
  options($("pace"), among(PACES, page.extra.pace), page.extra.pace);
  $("stop").value = page.extra.stop || "";
  options($("start"), same(TABLES.starts), settings.start);
  $("norm").checked = settings.norm;
  $("show-test").checked = Boolean(page.extra.test);
  $("sharp").checked = Boolean(page.extra.sharp);
  const used = new Set(settings.layers.map((layer) => layer.arithmetic));
  const mixed = used.size > 1 ? [["", "mixed"]] : [];
  options(
    $("everywhere"),
    [...mixed, ...same(Object.keys(TABLES.arithmetics))],
    used.size > 1 ? "" : ([...used][0] ?? ""),
  );
  $("everywhere").disabled = !used.size;
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
      choice(
        `arithmetic of layer ${k + 1}`,
        Object.keys(TABLES.arithmetics),
        layer.arithmetic,
        (name) => (hidden ? changeLayer(k, { arithmetic: name }) : change({ last: name })),
      ),
      choice(
        `activation of layer ${k + 1}`,
        Object.keys(TABLES.activations),
        layer.activation,
        (name) => (hidden ? changeLayer(k, { activation: name }) : change({ output: name })),
      ),
    );
    if (hidden) {
      const row = document.createElement("div");
      row.append(
        button("−", `one unit less in layer ${k + 1}`, () =>
          changeLayer(k, { units: layer.fanOut - 1 }),
        ),
        ` ${layer.fanOut} `,
        button("+", `one unit more in layer ${k + 1}`, () =>
          changeLayer(k, { units: layer.fanOut + 1 }),
        ),
        button("×", `remove layer ${k + 1}`, () =>
          change({ layers: settings.layers.filter((_, j) => j !== k) }),
        ),
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
  page.columns
    .slice(1)
    .forEach((boxes, k) =>
      boxes.forEach((box, u) =>
        box.setAttribute("aria-pressed", String(k === layer && u === unit)),
      ),
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
  const { lesson, extra, hidden, lines } = page;
  const text = writeAddress(lesson.settings, lesson.own, extra, hidden, lines);
  page.address = text;
  history.replaceState(null, "", "#" + text);
}
