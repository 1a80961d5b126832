// The front of a search: tens of thousands of points on a canvas, budgets that are answered while they are moved, and
// one chosen point, whose subnet the server shows beside it.

import { axis, colour, follow, logAxis, onTheme, read, short, significant } from "./common.js";

const NAMES = {
  latency_ms: ["Latency (ms)", " ms"],
  relative_cost: ["Relative cost", ""],
  peak_mib: ["Peak memory (MiB)", " MiB"],
  size_mib: ["File size (MiB)", " MiB"],
};
const STEPS = 1000;
const NEAR_FRONT = 10;
const MANY = 5000;
const NEAR = 24;

const place = document.getElementById("chart");
if (place) begin(place);

async function begin(element) {
  const state = document.getElementById("chart-state");
  try {
    const own = read(element.dataset.points);
    const other = element.dataset.beside ? read(element.dataset.beside) : null;
    const layers = [layer(await own, element.dataset.search, element.dataset.name)];
    if (other) layers.push(layer(await other, element.dataset.besideSearch, element.dataset.besideName));
    const view = new View(element, state, layers);
    view.draw();
    state.textContent = hint;
    budgets(view, state);
    fetch(document.getElementById("budgets").dataset.lookup).catch(() => {}); // has the server ready for the first question
  } catch (error) {
    state.textContent = `The points cannot be shown: ${error.message}. Load the page again; the table below has the front.`;
  }
}

const hint = "Choose a point with the mouse, or with arrow keys and Enter. Drag to zoom, double-click to see all.";

function layer(columns, search, name) {
  return { ...columns, search, name };
}

// Indices of the front in one cost alone, from the cheapest on: nothing cheaper is as accurate.
function stairs({ costs, accuracy, front }, cost) {
  const values = costs[cost];
  const order = [...Array(front).keys()].filter((n) => values[n] !== null);
  order.sort((a, b) => values[a] - values[b] || accuracy[b] - accuracy[a]);
  let best = -Infinity;
  return order.filter((n) => accuracy[n] > best && ((best = accuracy[n]), true));
}

class View {
  constructor(element, state, layers) {
    this.element = element;
    this.state = state;
    this.layers = layers;
    this.cost = layers[0].cost;
    this.log = false;
    this.at = -1;
    this.chosen = null;
    this.marks = {};
    for (const name of ["limit", "chosen", "cursor", "tip"]) {
      this.marks[name] = Object.assign(document.createElement("div"), { className: `mark ${name}`, hidden: true });
    }
    for (const input of document.querySelectorAll("input[name=axis]")) {
      input.addEventListener("change", () => this.show(input.value));
      if (input.checked && this.layers.every((one) => input.value in one.costs)) this.cost = input.value;
    }
    const log = document.getElementById("log");
    this.log = log.checked;
    log.addEventListener("change", () => ((this.log = log.checked), this.draw()));
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("blur", () => this.point(null));
    document.body.addEventListener("htmx:afterSwap", (event) => event.target.id === "chosen" && this.follow());
    onTheme(() => this.draw());
    follow(element, () => this.chart, () => this.height);
  }

  get height() {
    return Math.max(300, Math.min(520, Math.round(this.element.clientWidth * 0.74)));
  }

  show(cost) {
    this.cost = cost;
    this.at = -1;
    this.draw();
  }

  draw() {
    const shown = this.layers.filter((one) => this.cost in one.costs);
    this.steps = stairs(this.layers[0], this.cost);
    this.element.setAttribute("aria-valuemax", this.steps.length);
    const [x, y] = [extent(shown.map((one) => one.costs[this.cost]), this.log), extent(shown.map((one) => one.accuracy), false)];
    const [own, ...others] = shown;
    const [label] = NAMES[this.cost];
    const facets = [{ scale: "x", auto: false }, { scale: "y", auto: false }];
    const dots = (size, tint) => ({ facets, paths: paint(size, tint) });
    const series = [{}, dots(own.accuracy.length > MANY ? 2 : 3.5, "dots"), ...others.map(() => dots(5, "other")), dots(5, "accent")];
    const part = (one, from, to) => [one.costs[this.cost].slice(from, to), one.accuracy.slice(from, to)];
    const data = [null, part(own, own.front), ...others.map((one) => part(one, 0, one.front)), part(own, 0, own.front)];
    this.chart?.destroy();
    this.chart = new uPlot(
      {
        mode: 2,
        width: this.element.clientWidth,
        height: this.height,
        padding: [10, 12, 0, 0],
        legend: { show: false },
        cursor: { x: false, y: false, points: { show: false }, dataIdx: () => null, drag: { x: true, y: true, uni: 20, setScale: true } },
        scales: {
          x: { time: false, auto: false, distr: this.log ? 3 : 1, min: x[0], max: x[1], range: (_, min, max) => [min ?? x[0], max ?? x[1]] },
          y: { auto: false, min: y[0], max: y[1], range: (_, min, max) => [min ?? y[0], max ?? y[1]] },
        },
        axes: [
          axis(label, { space: 64, size: 30, ...(this.log ? logAxis : { values: (_, ticks) => ticks.map(short) }) }),
          axis("Accuracy (%)", { size: 52, values: (_, ticks) => ticks.map(short) }),
        ],
        series,
        hooks: {
          draw: [(chart) => this.lines(chart, shown)],
          setScale: [() => (this.places = null)],
          setSize: [() => (this.places = null)],
        },
      },
      data,
      this.element,
    );
    this.element.chart = this.chart;
    this.places = null;
    const { over } = this.chart;
    over.append(...Object.values(this.marks));
    let pressed = null;
    over.addEventListener("mousedown", (event) => (pressed = [event.clientX, event.clientY]));
    over.addEventListener("click", (event) => {
      const moved = pressed ? Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) : 0;
      const found = moved < 4 ? this.nearest(event) : null;
      if (found) this.choose(found);
    });
    over.addEventListener("mousemove", (event) => this.point(this.nearest(event)));
    over.addEventListener("mouseleave", () => this.point(null));
    over.addEventListener("dblclick", () => this.draw());
    this.place();
  }

  // The fronts in this cost alone, as stairs.
  lines(chart, shown) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const one of shown) {
      ctx.strokeStyle = colour(one === this.layers[0] ? "accent" : "other");
      ctx.beginPath();
      let before = null;
      for (const n of stairs(one, this.cost)) {
        const [x, y] = [chart.valToPos(one.costs[this.cost][n], "x", true), chart.valToPos(one.accuracy[n], "y", true)];
        if (before === null) ctx.moveTo(x, y);
        else {
          ctx.lineTo(x, before);
          ctx.lineTo(x, y);
        }
        before = y;
      }
      ctx.stroke();
    }
    ctx.restore();
    this.place();
  }

  // Where all points are, in pixels of the page; made again only after the scales have changed.
  positions() {
    this.places ??= this.layers.map((one) => {
      const values = one.costs[this.cost] ?? [];
      const at = { x: new Float32Array(values.length), y: new Float32Array(values.length) };
      values.forEach((value, n) => {
        at.x[n] = value === null ? NaN : this.chart.valToPos(value, "x");
        at.y[n] = this.chart.valToPos(one.accuracy[n], "y");
      });
      return at;
    });
    return this.places;
  }

  // The nearest point of a front, or else the nearest one at all, if it is near.
  nearest(event) {
    const box = this.chart.over.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    let found = null;
    let distance = NEAR;
    for (const only of [true, false]) {
      this.positions().forEach((at, l) => {
        const end = only || l > 0 ? this.layers[l].front : at.x.length;
        for (let n = 0; n < end; n++) {
          const d = Math.hypot(at.x[n] - left, at.y[n] - top);
          if (d < distance) [found, distance] = [{ layer: l, number: n }, d];
        }
      });
      if (found && distance <= NEAR_FRONT) return found;
      if (only) [found, distance] = [null, NEAR];
    }
    return found;
  }

  // Show which point would be chosen.
  point(found) {
    this.pointed = found;
    const { cursor, tip } = this.marks;
    cursor.hidden = tip.hidden = !found;
    if (found) {
      const one = this.layers[found.layer];
      this.put(cursor, found);
      this.put(tip, found);
      tip.textContent = this.text(one, found.number);
      tip.classList.toggle("left", this.positions()[found.layer].x[found.number] > this.chart.over.clientWidth - 170);
      tip.classList.toggle("below", this.positions()[found.layer].y[found.number] < 40);
    }
    this.chart.over.classList.toggle("pointing", Boolean(found));
  }

  text(one, n) {
    return `${one.accuracy[n].toFixed(2)} %, ${significant(one.costs[this.cost][n])}${NAMES[this.cost][1]}`;
  }

  choose(found) {
    const { search } = this.layers[found.layer];
    this.chosen = { search, number: found.number };
    this.place();
    const beside = found.layer > 0 ? "?beside=true" : "";
    this.state.textContent = `Chosen: ${this.text(this.layers[found.layer], found.number)}.`;
    return htmx.ajax("GET", `/searches/${search}/points/${found.number}${beside}`, { target: "#chosen", swap: "innerHTML" });
  }

  // What the panel shows is what the chart marks.
  follow() {
    const shown = document.querySelector("#chosen [data-number]");
    this.chosen = shown ? { search: shown.dataset.search, number: Number(shown.dataset.number) } : null;
    this.place();
  }

  key(event) {
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 };
    if (event.key in moves) {
      const start = this.at < 0 ? Math.max(0, this.steps.indexOf(this.chosen?.number)) : this.at + moves[event.key];
      this.at = Math.max(0, Math.min(this.steps.length - 1, start));
      const number = this.steps[this.at];
      this.point({ layer: 0, number });
      this.element.setAttribute("aria-valuenow", this.at + 1);
      this.element.setAttribute("aria-valuetext", `${this.text(this.layers[0], number)}, point ${this.at + 1} of ${this.steps.length}`);
    } else if ((event.key === "Enter" || event.key === " ") && this.pointed) {
      this.choose(this.pointed);
    } else if (event.key === "Escape") {
      this.point(null);
    } else return;
    event.preventDefault();
  }

  // Put the marks where they belong.
  place() {
    const l = this.layers.findIndex((one) => one.search === this.chosen?.search);
    this.marks.chosen.hidden = l < 0 || !(this.cost in this.layers[l].costs);
    if (!this.marks.chosen.hidden) this.put(this.marks.chosen, { layer: l, number: this.chosen.number });
    const limit = Number(document.querySelector(`[data-limit="${this.cost}"]`)?.value);
    const x = limit > 0 && this.chart ? this.chart.valToPos(limit, "x") : -1;
    this.marks.limit.hidden = !(x >= 0 && x <= this.chart.over.clientWidth);
    this.marks.limit.style.transform = `translateX(${x}px)`;
  }

  put(mark, { layer: l, number }) {
    const one = this.layers[l];
    const [x, y] = [this.chart.valToPos(one.costs[this.cost][number], "x"), this.chart.valToPos(one.accuracy[number], "y")];
    mark.style.transform = `translate(${x}px, ${y}px)`;
  }
}

// Squares rather than circles: ten times as fast, and at this size they look the same.
function paint(size, tint) {
  return (chart, index) => {
    const { ctx, bbox } = chart;
    const [xs, ys] = chart.data[index];
    const side = size * devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.fillStyle = colour(tint);
    for (let n = 0; n < xs.length; n++) {
      if (xs[n] === null) continue;
      ctx.fillRect(chart.valToPos(xs[n], "x", true) - side / 2, chart.valToPos(ys[n], "y", true) - side / 2, side, side);
    }
    ctx.restore();
    return null;
  };
}

// From the least to the largest of columns, with a little room.
function extent(columns, log) {
  let [min, max] = [Infinity, -Infinity];
  for (const column of columns) {
    for (const value of column) {
      if (value === null) continue;
      if (value < min) min = value;
      if (value > max) max = value;
    }
  }
  if (log) return [min / 1.05, max * 1.05];
  const room = 0.04 * (max - min || Math.abs(max) || 1);
  return [min - room, max + room];
}

// Budgets: number and slider say the same; whatever changes, the server is asked, once at a time.
function budgets(view, state) {
  const form = document.getElementById("budgets");
  const ranges = {};
  let [asking, again] = [false, false];

  const ask = async () => {
    if (asking) return void (again = true);
    asking = true;
    do {
      again = false;
      const query = new URLSearchParams([...new FormData(form)].filter(([name, value]) => value && name !== "search"));
      await htmx.ajax("GET", `${form.dataset.lookup}?${query}`, { target: "#chosen", swap: "innerHTML" });
      const kept = new URLSearchParams(location.search);
      for (const name of [...Object.keys(NAMES), "point"]) kept.delete(name);
      for (const [name, value] of query) kept.set(name, value);
      history.replaceState(null, "", `?${kept}`);
      const figure = document.querySelector("#chosen .big");
      state.textContent = figure ? `Accuracy within budget: ${figure.textContent} %.` : "No subnet meets this budget.";
    } while (again);
    asking = false;
  };

  for (const slider of form.querySelectorAll("[data-slide]")) {
    const name = slider.dataset.slide;
    const field = form.querySelector(`[data-limit="${name}"]`);
    const [least, most] = view.layers[0].reach[name];
    const [low, high] = [least / 1.05, most * 1.1]; // from where nothing meets it to where everything does
    ranges[name] = (value) => STEPS * (Math.log(value / low) / Math.log(high / low));
    const tell = () => slider.setAttribute("aria-valuetext", field.value ? `${field.value}${NAMES[name][1]}` : "no limit");
    const level = () => {
      slider.value = field.value ? Math.max(0, Math.min(STEPS - 1, ranges[name](Number(field.value)))) : STEPS;
      tell();
    };
    slider.addEventListener("input", () => {
      const value = low * (high / low) ** (slider.value / STEPS);
      field.value = Number(slider.value) >= STEPS ? "" : Number(value.toPrecision(4));
      tell();
      view.place();
      ask();
    });
    field.addEventListener("input", () => {
      level();
      view.place();
      if (field.validity.valid) ask();
    });
    form.addEventListener("reset", () => setTimeout(level));
    level();
  }
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const field of form.querySelectorAll("[data-limit]")) field.value = "";
    view.place();
    ask();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  view.follow();
}

for (const menu of document.querySelectorAll("[data-follow]")) {
  menu.addEventListener("change", () => menu.form.requestSubmit());
}
