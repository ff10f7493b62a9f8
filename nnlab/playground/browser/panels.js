// The panels of the unit that is pointed at: its weights, and the gradient rule of its arithmetic.

/** Fields for every weight and the bias of a unit; `set(layer, name, place, value)` changes one. */
function drawUnitPanel(element, lesson, selected, set) {
  const layer = lesson.layers[selected.layer];
  const { fanIn, fanOut, arithmetic, normed } = layer;
  const names = selected.layer
    ? Array.from({ length: fanIn }, (_, k) => `unit ${k + 1}`)
    : lesson.settings.inputs;
  const where =
    selected.layer === lesson.layers.length - 1 ? "output" : `layer ${selected.layer + 1}`;
  const fields = names.map((name, i) => [name, "w", i * fanOut + selected.unit]);
  fields.push(["bias", "bias", selected.unit]);
  if (normed) fields.push(["scale", "scale", selected.unit]);
  const key = [where, selected.unit, arithmetic, fields.length].join();
  if (element.dataset.key !== key) {
    element.dataset.key = key;
    element.innerHTML =
      `<p>Unit ${selected.unit + 1} of ${where}, ${arithmetic}. Numbers may be changed.</p>` +
      `<div class="weights"></div><p class="numbers" id="unit-formula"></p>`;
    const box = element.querySelector(".weights");
    for (const [name, array, place] of fields) {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { type: "number", step: "any", id: `weight-${array}-${place}` });
      label.textContent = NICE[name] ?? name;
      label.htmlFor = input.id;
      input.addEventListener("change", () => {
        if (input.value !== "" && Number.isFinite(Number(input.value))) {
          set(selected.layer, array, place, Number(input.value));
        }
      });
      box.append(label, input);
    }
  }
  element.querySelector("#unit-formula").textContent = unitFormula(layer, selected.unit, names);
  const inputs = element.querySelectorAll("input");
  fields.forEach(([, array, place], k) => {
    if (document.activeElement !== inputs[k]) inputs[k].value = +layer[array][place].toPrecision(6);
  });
}

/** What the unit computes, with its numbers as they are rounded. */
function unitFormula(layer, unit, names) {
  const { arithmetic, fanIn, fanOut, activation, normed } = layer;
  const w = names.map((_, i) => seenWeight(arithmetic, layer.w, fanIn, fanOut, unit, i));
  const short = names.map((name, i) => NICE[name] ?? `u${i + 1}`);
  const signs = arithmetic === "binary";
  const terms = short.map((x, i) => {
    if (arithmetic === "adder") return `− |${x} − ${bracketed(w[i])}|`;
    return `${w[i] < 0 ? "−" : "+"} ${show(Math.abs(w[i]))} ${signs ? `sgn ${x}` : x}`;
  });
  const bias = layer.bias[unit];
  const sum = terms.join(" ").replace(/^\+ /, "");
  const norm = normed ? "BatchNorm of " : "";
  return `${activation.replace("_", " ")} of ${norm}${sum} ${bias < 0 ? "−" : "+"} ${show(Math.abs(bias))}`;
}

function bracketed(value) {
  return value < 0 ? `(${show(value)})` : show(value);
}

/** A weight as the product sees it: what an input of 1 alone gives. */
function seenWeight(arithmetic, w, fanIn, fanOut, unit, input) {
  if (arithmetic === "adder") return w[input * fanOut + unit];
  if (arithmetic === "binary") return w[input * fanOut + unit] < 0 ? -1 : 1;
  const alone = new Float32Array(fanIn);
  alone[input] = 1;
  return lab[arithmetic + "_product"](1, fanIn, fanOut, alone, w)[0][unit];
}

/** The rule of the selected unit at one example: formulas, curves and a numerical check. */
function drawRulePanel(element, lesson, selected, colours) {
  const layer = lesson.layers[selected.layer];
  const { arithmetic, fanIn, fanOut } = layer;
  const { rule, about } = TABLES.arithmetics[arithmetic];
  if (!lesson.train.count) return;
  const [example] = lesson.batch();
  const { x } = lesson.examples([example]);
  const input = Math.min(selected.input ?? 0, fanIn - 1);
  const values = forward(lesson.layers, x, 1);
  const at = values[selected.layer].x;
  const own = Float32Array.from({ length: fanIn }, (_, i) => layer.w[i * fanOut + selected.unit]);
  const check = checkRule(arithmetic, at, layer.w, fanIn, fanOut, selected.unit, input);
  const key = `${arithmetic},${selected.layer},${selected.unit},${fanIn}`;
  if (element.dataset.key !== key) {
    element.dataset.key = key;
    const options = Array.from(
      { length: fanIn },
      (_, i) => `<option value="${i}">${i + 1}</option>`,
    );
    element.innerHTML = `<p><b>${arithmetic}</b>: ${about}; ${rule.note}.</p>
      <table><tr><th>forward</th><td>${rule.forward}</td><td></td></tr>
      <tr><th>rule of w</th><td>${rule.to_w}</td><td>gradient of ${rule.potential_w}</td></tr>
      <tr><th>rule of x</th><td>${rule.to_x}</td><td>gradient of ${rule.potential_x}</td></tr></table>
      <div class="row"><label>weight from input <select id="rule-input">${options.join("")}</select></label></div>
      <canvas width="720" height="300" role="img" aria-label="Value, potential and rule by the weight"></canvas>
      <p class="key"></p><p class="numbers" id="rule-check"></p>`;
  }
  element.querySelector("#rule-input").value = String(input);
  const xs = Array.from({ length: 121 }, (_, k) => -3 + k / 20);
  const value = [];
  const slope = [];
  const potential = [];
  for (const w of xs) {
    const moved = own.slice();
    moved[input] = w;
    value.push(lab[arithmetic + "_product"](1, fanIn, 1, at, moved)[0][0]);
    slope.push(
      lab[arithmetic + "_cotangents"](1, fanIn, 1, at, moved, Float32Array.of(1))[1][input],
    );
    potential.push(
      lab[arithmetic + "_potential_w"](1, Float32Array.of(at[input]), Float32Array.of(w))[0][0],
    );
  }
  const lines = [
    { ys: value, colour: colours.ink, dash: [] },
    { ys: potential, colour: colours.names[0], dash: [10, 5] },
    { ys: slope, colour: colours.names[1], dash: [3, 3] },
  ];
  drawLines(
    element.querySelector("canvas"),
    xs,
    lines,
    Math.max(-3, Math.min(3, own[input])),
    colours,
  );
  element.querySelector(".key").innerHTML =
    `by the weight w, x = ${show(at[input])}: <b>—</b> forward value y, ` +
    `<b style="color:${colours.names[0]}">- -</b> potential of the rule, ` +
    `<b style="color:${colours.names[1]}">···</b> rule of w (g = 1); the dotted line is w = ${show(own[input])}`;
  element.querySelector("#rule-check").textContent =
    `Checked here with g = 1: rule of w ${show(check.w)}, slope of its potential ${show(check.slopeW)}; ` +
    `rule of x ${show(check.x)}, slope of its potential ${show(check.slopeX)}.`;
}

/** What a unit's rules send back for g = 1, and numerical slopes of their potentials. */
function checkRule(arithmetic, at, w, fanIn, fanOut, unit, input) {
  // The whole layer, since some arithmetics round by all of its weights.
  const g = new Float32Array(fanOut);
  g[unit] = 1;
  const [dx, dw] = lab[arithmetic + "_cotangents"](1, fanIn, fanOut, at, w, g);
  const one = (value) => Float32Array.of(value);
  const seen = seenWeight(arithmetic, w, fanIn, fanOut, unit, input);
  const h = 2 ** -7;
  const real = w[input * fanOut + unit];
  const ofW = (v) => lab[arithmetic + "_potential_w"](1, one(at[input]), one(v))[0][0];
  const ofX = (v) => lab[arithmetic + "_potential_x"](1, one(v), one(seen))[0][0];
  return {
    w: dw[input * fanOut + unit],
    x: dx[input],
    slopeW: (ofW(real + h) - ofW(real - h)) / (2 * h),
    slopeX: (ofX(at[input] + h) - ofX(at[input] - h)) / (2 * h),
  };
}

function show(value) {
  return String(+value.toPrecision(4)).replace("-", "−");
}
