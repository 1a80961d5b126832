// Lines with their intervals: what gates cost on the page of a profile, and how methods did on that of a comparison.

import { axis, colour, follow, lineColour, logAxis, onTheme, read, short, significant } from "./common.js";

const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

const comparison = document.querySelector("[data-comparison]");
if (comparison) compare(comparison);
document.body.addEventListener("htmx:afterSwap", curves);
curves();

function faded(tint) {
  return `color-mix(in srgb, ${tint} 18%, transparent)`;
}

function tried(element, draw) {
  draw().catch((error) => {
    element.textContent = `The chart cannot be shown: ${error.message}. The table has its figures.`;
  });
}

// Small charts side by side, one a gate.
function curves() {
  const element = document.querySelector("[data-curves]:not([data-drawn])");
  if (!element) return;
  element.dataset.drawn = "";
  tried(element, async () => {
    const { gates, unit } = await read(element.dataset.curves);
    const same = document.getElementById("same");
    const charts = [];
    const draw = () => {
      const name = document.querySelector("input[name=curve]:checked").value;
      for (const chart of charts.splice(0)) chart.destroy();
      const shown = gates.map((gate) => columns(gate, name));
      const all = span(shown.flatMap((data) => data.slice(1).flat()));
      gates.forEach((gate, n) => {
        const figure = element.children[n] ?? cell(element, gate);
        charts.push(curve(figure, shown[n], same.checked ? all : span(shown[n].slice(1).flat()), name === "latency_ms" ? unit : "MiB"));
      });
    };
    draw();
    for (const input of document.querySelectorAll("input[name=curve], #same")) input.addEventListener("change", draw);
    onTheme(draw);
    new ResizeObserver(() => {
      charts.forEach((chart, n) => {
        const width = element.children[n].clientWidth;
        if (width && Math.abs(chart.width - width) > 1) chart.setSize({ width, height: chart.height });
      });
    }).observe(element);
  });
}

function columns(gate, name) {
  const extra = name === "latency_ms" ? [gate.latency_ms_low, gate.latency_ms_high] : [];
  return [gate.counts, gate[name], ...extra];
}

function span(values) {
  const [min, max] = [Math.min(...values), Math.max(...values)];
  const room = 0.06 * (max - min || Math.abs(max) || 1);
  return [Math.max(0, min - room), max + room];
}

function cell(element, gate) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const name = Object.assign(document.createElement("strong"), { textContent: gate.name });
  const level = Object.assign(document.createElement("span"), { className: "quiet", textContent: ` ${gate.level}` });
  const told = Object.assign(document.createElement("span"), { className: "told quiet" });
  caption.append(name, level, told);
  figure.append(caption);
  figure.setAttribute("role", "img");
  figure.setAttribute("aria-label", `Cost against the blocks of ${gate.name}; the table has the figures`);
  element.append(figure);
  return figure;
}

function curve(figure, data, range, unit) {
  const told = figure.querySelector(".told");
  const tint = colour("accent");
  const edge = { stroke: "transparent", points: { show: false } };
  const few = data[0].length < 24;
  const counts = `${data[0].at(0)} to ${data[0].at(-1)} blocks`;
  told.textContent = counts;
  return new uPlot(
    {
      width: figure.clientWidth,
      height: 150,
      padding: [6, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { x: { time: false, range: (_, min, max) => (min === max ? [min - 0.5, max + 0.5] : [min, max]) }, y: { range: () => range } },
      axes: [
        axis(null, { label: undefined, size: 26, space: 40, incrs: WHOLE }),
        axis(null, { label: undefined, size: 48, space: 32, values: (_, ticks) => ticks.map(short) }),
      ],
      series: [{}, { stroke: tint, width: 1.75, points: { show: few, size: 5, fill: tint } }, ...(data.length > 2 ? [edge, edge] : [])],
      bands: data.length > 2 ? [{ series: [3, 2], fill: faded(tint) }] : [],
      hooks: {
        setCursor: [
          ({ cursor: { idx } }) => {
            const interval = data.length > 2 && idx !== null ? `, ${significant(data[2][idx], 3)} to ${significant(data[3][idx], 3)}` : "";
            told.textContent = idx === null || idx === undefined ? counts : `${data[0][idx]}: ${significant(data[1][idx])} ${unit === "ms" || unit === "MiB" ? unit : ""}${interval}`;
          },
        ],
      },
    },
    data,
    figure,
  );
}

// Methods over each other; which of them, the boxes say.
function compare(element) {
  tried(document.getElementById("over"), async () => {
    const { methods } = await read(element.dataset.comparison);
    const boxes = [...element.querySelectorAll("input")];
    const places = [
      ["over", methods.map((one) => [one.evaluations, one.mean, one.low, one.high]), "Evaluations", true],
      ["at", methods.map(({ budgets: b }) => [b.budget, b.mean, b.low, b.high]), document.getElementById("at").dataset.unit, false],
    ];
    const charts = {};
    const draw = () => {
      for (const [id, tables, label, stepped] of places) {
        charts[id]?.destroy();
        charts[id] = lines(document.getElementById(id), methods, tables, label, stepped);
        document.getElementById(id).chart = charts[id];
      }
      boxes.forEach(toggle);
    };
    const toggle = (box, n) => {
      for (const chart of Object.values(charts)) {
        for (const series of [1, 2, 3]) chart.setSeries(3 * n + series, { show: box.checked });
      }
    };
    draw();
    boxes.forEach((box, n) => box.addEventListener("change", () => toggle(box, n)));
    onTheme(draw);
    for (const [id] of places) follow(document.getElementById(id), () => charts[id], () => height(id));
  });
}

function height(id) {
  return Math.max(280, Math.min(380, Math.round(document.getElementById(id).clientWidth * 0.65)));
}

function lines(element, methods, tables, label, stepped) {
  const data = uPlot.join(tables);
  const paths = stepped ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear();
  const edge = { stroke: "transparent", paths, spanGaps: true, points: { show: false } };
  const series = methods.flatMap((method, n) => [
    { label: method.name, stroke: lineColour(n), width: 2, paths, spanGaps: true, points: { show: !stepped, size: 6, fill: lineColour(n) } },
    edge,
    edge,
  ]);
  return new uPlot(
    {
      width: element.clientWidth,
      height: height(element.id),
      padding: [10, 14, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, distr: 3, range: (_, min, max) => [min / 1.02, max * 1.04] }, y: { range: (chart) => visible(chart, stepped) } },
      axes: [axis(label, { size: 30, ...logAxis }), axis("Accuracy (%)", { size: 52, values: (_, ticks) => ticks.map(short) })],
      series: [{}, ...series],
      bands: methods.map((_, n) => ({ series: [3 * n + 3, 3 * n + 2], fill: faded(lineColour(n)) })),
    },
    data,
    element,
  );
}

// What is worth seeing of the methods shown: of a curve not its first steps, where little is found yet.
function visible(chart, stepped) {
  const shown = chart.series.map((one, n) => [one, n]).filter(([one, n]) => n && one.show);
  const values = shown.flatMap(([, n]) => chart.data[n].filter((value) => value !== null && value !== undefined));
  if (!values.length) return [0, 100];
  const last = Math.max(...values);
  const sorted = values.toSorted((a, b) => a - b);
  const first = stepped ? sorted[Math.floor(sorted.length / 5)] : sorted[0];
  const room = 0.05 * (last - first || 1);
  return [first - room, last + room];
}
