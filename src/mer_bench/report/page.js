"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const make = (name, attributes = {}, ...children) => {
    const svg = ["svg", "line", "rect"].includes(name);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  // Theme: that of the system until the reader chooses one.
  const root = document.documentElement, theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch { return null; } // a browser may forbid storage to files
  };
  const apply = (name) => {
    root.dataset.theme = name;
    theme.setAttribute("aria-pressed", name === "dark");
  };
  apply(stored() || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => stored() || apply(system.matches ? "dark" : "light"));
  theme.addEventListener("click", () => {
    apply(root.dataset.theme === "dark" ? "light" : "dark");
    stored(root.dataset.theme);
  });

  // Sorting: unknown values stay last, equal ones keep the order of the leaderboard.
  const sort = (button) => {
    const heading = button.parentElement, table = button.closest("table"), position = heading.cellIndex;
    const before = heading.getAttribute("aria-sort");
    const falling = before ? before === "ascending" : button.dataset.falling === "true";
    all("[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const numeric = heading.classList.contains("number");
    const keyed = [...table.tBodies].map((body) => ({ body, value: body.rows[0].cells[position].dataset.value }));
    keyed.sort((a, b) => {
      if (a.value === undefined || b.value === undefined) {
        const known = (a.value === undefined) - (b.value === undefined);
        return known || a.body.dataset.position - b.body.dataset.position;
      }
      const order = numeric ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
      return (falling ? -order : order) || a.body.dataset.position - b.body.dataset.position;
    });
    table.append(...keyed.map((each) => each.body));
  };
  all(".sort").forEach((button) => button.addEventListener("click", () => sort(button)));

  // Details of a row.
  all(".more").forEach((button) => button.addEventListener("click", () => {
    const details = document.getElementById(button.getAttribute("aria-controls"));
    details.hidden = !details.hidden;
    button.setAttribute("aria-expanded", !details.hidden);
  }));

  // Filter.
  const form = document.querySelector(".filters form");
  const filter = () => {
    const { dataset, track, reads, method } = Object.fromEntries(new FormData(form));
    const words = method.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const named = (text) => !words.length || words.some((word) => text.includes(word));
    let rows = 0, tables = 0;
    for (const article of all("article")) {
      const fits = (!dataset || article.dataset.dataset === dataset) && (!track || article.dataset.track === track);
      let shown = 0;
      for (const body of all(".ranking > tbody", article)) {
        body.hidden = !(fits && (!reads || body.dataset.reads === reads) && named(body.dataset.search));
        shown += !body.hidden;
      }
      article.hidden = !shown;
      document.querySelector(`[data-for="${article.id}"]`).hidden = !shown;
      rows += shown;
      tables += shown > 0;
    }
    for (const section of all("section.real, section.simulated")) section.hidden = !all("article:not([hidden])", section).length;
    for (const panel of all(".published .panel")) {
      for (const body of all("tbody", panel)) body.hidden = !named(body.dataset.search);
      panel.hidden = (dataset && panel.dataset.dataset !== dataset) || !all("tbody:not([hidden])", panel).length;
    }
    document.getElementById("nothing").hidden = rows > 0;
    form.elements.count.value = `${rows} rows in ${tables} ${tables === 1 ? "table" : "tables"}`;
  };
  if (form) {
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    document.querySelector("#nothing button").addEventListener("click", () => { form.reset(); form.elements.method.focus(); });
    filter(); // a browser may have kept what was chosen before a reload
  }

  // Two methods side by side.
  const data = JSON.parse(document.getElementById("data").textContent);
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1);
  const written = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);
  const difference = ({ pairs, names }, a, b) => {
    if (a === b) return null;
    const [i, j] = a < b ? [a, b] : [b, a];
    const found = pairs[i * names.length - (i * (i + 1)) / 2 + j - i - 1];
    if (!found || a < b) return found;
    return [-found[0], -found[2], -found[1], found[3]];
  };
  const verdict = (table, a, b) => {
    if (a === b) return "Choose two different rows.";
    const scores = `Weighted F1 ${table.scores[a]} (A) against ${table.scores[b]} (B)`;
    const found = difference(table, a, b);
    if (!found) return `${scores}. No test: a row lacks a complete seed, or its scores by dialogue or actor.`;
    const [effect, low, high, p] = found;
    const few = [table.few[a], table.few[b]].filter(Boolean).sort()[0]; // no complete seed, one seed, two seeds
    const said = few ? `with ${few}, this holds for these trainings alone` : p >= 0.05 ? "no difference is shown" : effect > 0 ? "A is ahead" : "B is ahead";
    return `${scores}: ${signed(effect)} points, 95 % interval ${signed(low)} to ${signed(high)}, ${written(p)}: ${said}.`;
  };
  const bar = (gain, widest) => {
    const width = (50 * Math.abs(gain)) / widest;
    return make("svg", { class: "gain", viewBox: "-1 0 102 14", preserveAspectRatio: "none", "aria-hidden": "true" },
      make("rect", { x: gain < 0 ? 50 - width : 50, y: 2, width, height: 10, class: gain < 0 ? "loss" : "won" }),
      make("line", { x1: 50, x2: 50, y1: 0, y2: 14 }));
  };
  const compare = (panel) => {
    const table = data[panel.closest("article").id];
    const [a, b] = ["A", "B"].map((side) => Number(panel.querySelector(`[data-side="${side}"]`).value));
    const gains = table.classes.map((_, index) => table.f1[a][index] - table.f1[b][index]);
    const widest = Math.max(5, ...gains.map(Math.abs));
    const head = ["Class", "Utterances", "F1 of A", "F1 of B", "Gain of A over B", ""];
    const result = [make("p", { class: "verdict" }, verdict(table, a, b))];
    if (a !== b) {
      result.push(
        make("p", {}, "Paired bootstrap on the same test utterances; the p-value is not corrected for other comparisons."),
        make("div", { class: "scroll" }, make("table", { class: "gains" },
          make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
          make("tbody", {}, ...table.classes.map((name, index) => make("tr", {},
            make("th", { scope: "row" }, name), make("td", {}, table.support[index].toLocaleString("en")),
            make("td", {}, table.f1[a][index].toFixed(1)), make("td", {}, table.f1[b][index].toFixed(1)),
            make("td", {}, signed(gains[index])), make("td", {}, bar(gains[index], widest))))))));
      if (table.methods[a] !== table.methods[b]) {
        const line = `mer-bench compare ${table.methods[a]} ${table.methods[b]} --dataset ${table.dataset}`;
        result.push(make("p", {}, "Command that lists the utterances on which they differ: "), make("pre", { tabindex: "0" }, line));
      }
    }
    panel.querySelector(".result").replaceChildren(...result);
  };
  for (const panel of all(".compare")) {
    const [first, second] = all("select", panel);
    panel.addEventListener("toggle", () => panel.open && compare(panel));
    panel.addEventListener("change", () => compare(panel));
    panel.querySelector(".swap").addEventListener("click", () => {
      [first.value, second.value] = [second.value, first.value];
      compare(panel);
    });
  }

  // Details on hover and on keyboard focus; Escape hides them.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const owner = event.target.closest?.("[data-tip]");
    if (!owner) return hide();
    tip.textContent = owner.dataset.tip;
    tip.hidden = false;
    const box = owner.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = box.bottom + 6 + own.height < innerHeight;
    tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - own.width - 4))}px`;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - own.height - 6)}px`;
  };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
