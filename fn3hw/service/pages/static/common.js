// What the charts share: colours of the page's style sheet, sizes, and numbers as the pages write them.

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const lineColour = (number) => colour(`line-${number % 10}`);

export function significant(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(places, 8), maximumFractionDigits: Math.min(places, 8) });
}

// Calls `draw` again whenever the page turns light or dark: a canvas does not follow a style sheet by itself.
export function onTheme(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// Keeps a chart as wide as its place.
export function follow(element, chart, height) {
  new ResizeObserver(() => {
    const width = element.clientWidth;
    const found = chart();
    if (found && width && Math.abs(found.width - width) > 1) found.setSize({ width, height: height() });
  }).observe(element);
}

export async function read(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (answer.redirected || !answer.ok) throw new Error(`${answer.status} for ${address}`);
  return answer.json();
}

export function axis(label, more = {}) {
  return {
    label,
    labelSize: 22,
    labelGap: 2,
    labelFont: "13px system-ui, sans-serif",
    font: "12px system-ui, sans-serif",
    stroke: () => colour("quiet"),
    grid: { stroke: () => colour("grid"), width: 1 },
    ticks: { stroke: () => colour("grid"), width: 1, size: 5 },
    ...more,
  };
}

// Of a logarithmic axis: a line at each digit of each power of ten, with labels as far as there is room for them.
export const logAxis = {
  splits: (chart, _, min, max) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(min)); 10 ** power <= max; power++) {
      for (let digit = 1; digit < 10; digit++) ticks.push(Number((digit * 10 ** power).toPrecision(3)));
    }
    return ticks.filter((tick) => tick >= min && tick <= max);
  },
  filter: (chart, ticks) => ticks,
  values: (chart, ticks) => {
    const room = chart.width / 55;
    const leads = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1]].find((some) => ticks.filter((tick) => some.includes(lead(tick))).length <= room) ?? [1];
    return ticks.map((tick) => (leads.includes(lead(tick)) ? short(tick) : ""));
  },
};

const lead = (tick) => Math.round(tick / 10 ** Math.floor(Math.log10(tick) + 1e-9));

export const short = (value) => (value === null ? "" : Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 }));
