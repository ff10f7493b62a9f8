// "By hand": one step of training on one example, number by number, forwards and backwards. The
// numbers are those of the printed functions; the first example is `nnlab.classics.by_hand.WORKED`.

const FORMULAS = {
  tanh: ["a = tanh z", "(1 − a²)"],
  relu: ["a = max(z, 0)", "1[z > 0]"],
  sigmoid: ["a = 1 / (1 + e⁻ᶻ)", "a (1 − a)"],
  hard_tanh: ["a = clip(z, −1, 1)", "1[|z| < 1]"],
  linear: ["a = z", "1"],
};

/** The lesson that begins with the worked example, in an arithmetic. */
function workedLesson(arithmetic) {
  const { x, target, first, second, biases, rate } = TABLES.worked;
  const settings = {
    ...defaultSettings(),
    ...{ inputs: ["x1", "x2"], layers: [{ arithmetic, units: 2, activation: "sigmoid" }] },
    ...{ last: arithmetic, output: "sigmoid", loss: "squared", optimizer: "sgd", norm: false },
    ...{ rate, batch: 1, fixedBiases: true, plain: true },
  };
  const layers = startNetwork(settings);
  [first, second].forEach((w, k) => {
    layers[k].w = Float32Array.from(w.flat());
    layers[k].bias.fill(biases[k]);
  });
  return { settings, layers, x: Float32Array.from(x), t: Float32Array.from(target), step: 0 };
}

/** A lesson on the next example of the page's network, a copy. */
function copiedLesson(lesson) {
  const [example] = lesson.batch();
  const { x, t } = lesson.examples([example]);
  const settings = { ...lesson.settings, batch: 1 };
  return { settings, layers: lesson.layers, x, t, step: lesson.step };
}

function numbered(name, numbers, wide = 0) {
  return Array.from(numbers, (value, k) => {
    const index = wide ? `${Math.floor(k / wide) + 1},${(k % wide) + 1}` : k + 1;
    return [`${name}${index}`, value];
  });
}

/** All numbers of one step as parts { title, formula, rows }, and the layers after it. */
function handStep(lesson) {
  const { settings, layers, x, t } = lesson;
  // With one example BatchNorm has nothing to compare; it uses its running statistics.
  const frozen = layers.some((layer) => layer.normed);
  const values = forward(layers, x, 1);
  const { value, gradients } = backward(layers, values, t, 1, settings.loss, false);
  const parts = [
    {
      title: "Example",
      formula: "inputs x and targets t",
      rows: [...numbered("x", x), ...numbered("t", t)],
    },
  ];
  values.forEach(({ y, z, a }, k) => {
    const { arithmetic, activation, normed } = layers[k];
    const { forward: product } = TABLES.arithmetics[arithmetic].rule;
    const bias = normed ? "z = scale (y − mean) / √variance + b" : "z = y + b";
    parts.push({
      title: `Layer ${k + 1}, sums`,
      formula: `${product}; ${bias}`,
      rows: [...numbered("y", y), ...numbered("z", z)],
    });
    const [formula] = FORMULAS[activation];
    parts.push({ title: `Layer ${k + 1}, values`, formula, rows: numbered("a", a) });
  });
  const error = settings.loss === "squared" ? "E = ½ Σ (t − a)²" : "E = −Σ t ln softmax(a)";
  parts.push({ title: "Error", formula: error, rows: [["E", value]] });
  const next = layers.map((layer, k) => updated(layer, gradients[k], settings));
  for (let k = layers.length - 1; k >= 0; k--) {
    const { arithmetic, activation, fanOut } = layers[k];
    const { to_w: toW, to_x: toX } = TABLES.arithmetics[arithmetic].rule;
    const top = k === layers.length - 1;
    const above = TABLES.arithmetics[layers[top ? k : k + 1].arithmetic].rule.to_x;
    const sent = top ? (settings.loss === "squared" ? "(a − t)" : "(softmax(a) − t)") : "sent";
    parts.push({
      title: `Layer ${k + 1}, deltas`,
      formula:
        `δ = ${sent} · ${FORMULAS[activation][1]}` +
        (top ? "" : `; sent is ${above}, by the old weights`),
      rows: [
        ...(top ? [] : numbered("sent", gradients[k].sent)),
        ...numbered("δ", gradients[k].delta),
      ],
    });
    parts.push({
      title: `Layer ${k + 1}, gradients`,
      formula: `${toW} (g is δ${layers[k].normed ? " through BatchNorm" : ""})`,
      rows: [
        ...numbered("∂w", gradients[k].w, fanOut),
        ...(settings.fixedBiases ? [] : numbered("∂b", gradients[k].bias)),
      ],
    });
  }
  next.forEach((layer, k) => {
    const held = settings.fixedBiases ? "; biases are held" : "";
    parts.push({
      title: `Layer ${k + 1}, new weights`,
      formula: `${settings.optimizer}, rate ${settings.rate}${held}`,
      rows: [
        ...numbered("w", layer.w, layer.fanOut),
        ...(settings.fixedBiases ? [] : numbered("b", layer.bias)),
      ],
    });
  });
  if (frozen) parts[0].formula += "; BatchNorm by its running statistics";
  return { parts, next, error: value };
}

/** The panel: which part is shown last, and the steps that were taken. */
class Hand {
  constructor(element) {
    this.element = element;
    this.start(workedLesson("float"));
  }

  start(lesson) {
    this.lessons = [lesson];
    this.shown = 1;
    this._compute();
  }

  get lesson() {
    return this.lessons[this.lessons.length - 1];
  }

  _compute() {
    this.result = handStep(this.lesson);
    this.draw();
  }

  next() {
    if (this.shown < this.result.parts.length) {
      this.shown++;
      this.draw();
      return;
    }
    const { settings, x, t, step } = this.lesson;
    this.lessons.push({ settings, layers: this.result.next, x, t, step: step + 1 });
    this.shown = 1;
    this._compute();
  }

  back() {
    if (this.shown > 1) {
      this.shown--;
      this.draw();
    } else if (this.lessons.length > 1) {
      this.lessons.pop();
      this.result = handStep(this.lesson);
      this.shown = this.result.parts.length;
      this.draw();
    }
  }

  whole() {
    if (this.shown < this.result.parts.length) {
      this.shown = this.result.parts.length;
      this.draw();
    } else {
      this.next();
      this.whole();
    }
  }

  draw() {
    const parts = this.result.parts.slice(0, this.shown);
    const heading = `<p style="width:100%">Step ${this.lesson.step + 1}, part ${this.shown} of ${this.result.parts.length}</p>`;
    this.element.innerHTML =
      heading +
      parts
        .map(({ title, formula, rows }, k) => {
          const now = k === parts.length - 1 ? ' class="now"' : "";
          const cells = rows.map(
            ([name, value]) => `<tr><td>${name}</td><td>${precise(value)}</td></tr>`,
          );
          return `<div${now}><h3>${title}</h3><p class="formula">${formula}</p><table>${cells.join("")}</table></div>`;
        })
        .join("");
  }
}

/** Seven digits, a float32 holds. */
function precise(value) {
  return Number.isFinite(value) ? String(+value.toPrecision(7)).replace("-", "−") : String(value);
}
