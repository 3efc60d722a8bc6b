"use strict";
// The page has one state, which is the part of its address after "#": which table, columns, order, filter and open rows.
// What a reader presses changes the state, and the state alone decides what is drawn; so a view can be sent as a link,
// and the back button works. All that comes from records is put in as text or as an attribute, never as markup.
(() => {
  const front = JSON.parse(document.getElementById("front").textContent);
  const main = document.getElementById("main"), said = document.getElementById("said");
  const narrow = matchMedia("(max-width: 48rem)");
  const SVG = ["svg", "path", "line", "circle", "rect", "text", "polyline"];

  // An element: attributes whose names begin with "on" listen, those that are null or false are left out.
  const make = (name, attributes = {}, ...children) => {
    const node = SVG.includes(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  };
  const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1);
  const range = ([low, high]) => `${low.toFixed(1)} to ${high.toFixed(1)}`;
  const between = ([low, high]) => (low === high ? number(low) : `${number(low)}–${number(high)}`);
  const size = (both) => { // 185–327 k
    const [unit, name] = both[1] >= 1e6 ? [1e6, "\u00a0M"] : both[1] >= 1e3 ? [1e3, "\u00a0k"] : [1, ""];
    const [low, high] = both.map((count) => (count / unit).toFixed(count < 10 * unit && unit > 1 ? 1 : 0));
    return low === high ? high + name : `${low}–${high}${name}`;
  };
  const say = (text) => { said.textContent = text; };

  // Text with the Markdown that notes have: `code`, *emphasis*, **strong**, and escaped characters.
  const unescape = (text) => text.replace(/&lt;/g, "<").replace(/\\([\\`*[\]~#_])/g, "$1");
  const rich = (text) => text.split(/(`[^`]*`|(?<!\\)\*\*.+?(?<!\\)\*\*|(?<!\\)\*[^\s*].*?(?<!\\)\*)/).filter(Boolean).map((part) => {
    if (/^`.*`$/.test(part)) return make("code", {}, part.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(part)) return make("strong", {}, unescape(part.slice(2, -2)));
    if (/^\*.+\*$/.test(part)) return make("em", {}, unescape(part.slice(1, -1)));
    return unescape(part);
  });

  // ---- Data: files beside the page, or the same files compressed in it. Each is read once, when it is first opened.
  const files = new Map();
  const inflate = (node) => {
    const bytes = Uint8Array.from(atob(node.textContent), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  };
  const embedded = (name) => inflate(document.querySelector(`script[data-file="${name}"]`));
  const fetched = async (name) => {
    const answer = await fetch(`data/${name}`);
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    return answer.text();
  };
  const load = (name) => {
    if (!files.has(name)) {
      const found = (front.embedded ? embedded(name) : fetched(name)).then(JSON.parse);
      found.catch(() => files.delete(name)); // so that it is asked for again
      files.set(name, found);
    }
    return files.get(name);
  };
  const addressOf = async (picture) => (front.embedded ? `data:image/svg+xml,${encodeURIComponent(await embedded(picture))}` : `data/${picture}`);
  const trouble = () => make("p", { class: "warning", role: "alert" }, front.embedded
    ? "This part of the page cannot be read. A browser of 2023 or later is needed."
    : "The data of this part cannot be fetched. Open this page through a web server, for instance with python -m http.server in its folder.");

  // ---- State
  const read = () => {
    const found = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    return {
      table: Object.hasOwn(front.tables, found.get("table")) ? found.get("table") : "",
      view: ["published", "compare"].includes(found.get("view")) ? found.get("view") : "",
      columns: front.presets.includes(found.get("columns")) ? found.get("columns") : front.presets[0],
      sort: found.get("sort") || "", q: found.get("q") || "", reads: found.get("reads") || "",
      made: found.get("made") || "", current: found.get("current") === "1",
      open: (found.get("open") || "").split(",").filter(Boolean),
      a: found.get("a") || "", b: found.get("b") || "",
    };
  };
  let state = read();
  const address = (of) => {
    const found = new URLSearchParams();
    for (const [key, value] of Object.entries(of)) {
      const text = value === true ? "1" : Array.isArray(value) ? value.join(",") : value || "";
      if (text && !(key === "columns" && text === front.presets[0])) found.set(key, text);
    }
    return `#${found}`;
  };
  const remember = (change, { replace = false } = {}) => {
    Object.assign(state, change);
    const to = address(state) === "#" ? location.pathname + location.search : address(state);
    history[replace ? "replaceState" : "pushState"](null, "", to);
  };
  const place = (to) => address({ ...to, columns: to.columns || front.presets[0] });

  // ---- Theme: that of the system until the reader chooses one.
  const theme = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = (value) => {
    try {
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch { return null; } // a browser may forbid storage to files
  };
  const wear = (name) => {
    document.documentElement.dataset.theme = name;
    theme.setAttribute("aria-pressed", name === "dark");
  };
  wear(chosen() || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => chosen() || wear(dark.matches ? "dark" : "light"));
  theme.addEventListener("click", () => {
    wear(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    chosen(document.documentElement.dataset.theme);
  });

  // ---- Tabs
  const tablist = document.querySelector(".tabs");
  const tabs = [
    { title: "Overview", to: {} },
    ...front.tabs.map((tab) => ({ ...tab, to: { table: tab.tables[0] } })),
    { title: "Published numbers", to: { view: "published" } },
    { title: "Compare two rows", to: { view: "compare" } },
  ];
  const shownTab = () => tabs.find((tab) => (state.table ? tab.tables?.includes(state.table) : !tab.tables && (tab.to.view || "") === state.view));
  tablist.append(...tabs.map((tab, index) => {
    tab.button = make("button", { type: "button", role: "tab", id: `tab-${index}`, "aria-controls": "main", onclick: () => go(tab.to) }, tab.title);
    return tab.button;
  }));
  tablist.addEventListener("keydown", (event) => {
    const at = tabs.findIndex((tab) => tab.button === document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    tabs[(to + tabs.length) % tabs.length].button.focus(); // Enter opens it
  });
  const go = (to, options) => {
    remember({ table: "", view: "", columns: front.presets[0], sort: "", q: "", reads: "", made: "", current: false, open: [], a: "", b: "", ...to }, options);
    return render();
  };
  const link = (to, attributes, ...children) => make("a", {
    href: place(to), ...attributes,
    onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab or window
      event.preventDefault();
      go(to);
    },
  }, ...children);

  // ---- Copies of what is shown
  const markdownCell = (text) => text.replace(/[\\`*[\]~#]|(?<![\p{L}\p{N}_])_|_(?![\p{L}\p{N}_])/gu, "\\$&").replace(/</g, "&lt;").replace(/\|/g, "\\|");
  const FORMATS = {
    CSV: ({ csv }) => csv.map((row) => row.map((cell) => {
      const text = String(cell ?? "");
      return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    }).join(",")).join("\n") + "\n",
    LaTeX: ({ cells, numbers }) => {
      const [head, ...body] = cells.map((row) => `${row.map((cell) => [...cell].map((one) => front.latex[one] ?? one).join("")).join(" & ")} \\\\`);
      const columns = numbers.map((right) => (right ? "r" : "l")).join("");
      return [`\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}"].join("\n") + "\n";
    },
    Markdown: ({ cells, numbers }) => {
      const [head, ...body] = cells.map((row) => `| ${row.map(markdownCell).join(" | ")} |`);
      return [head, `| ${numbers.map((right) => (right ? "--:" : "---")).join(" | ")} |`, ...body].join("\n") + "\n";
    },
  };
  const copy = async (text, name) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // pages without https may not write to the clipboard in this way
      const area = make("textarea", { class: "unseen", readonly: true });
      const before = document.activeElement;
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      before?.focus();
    }
    say(`${name} is in the clipboard.`);
  };
  const copyButton = (label, name, text) => {
    const button = make("button", { type: "button", onclick: async () => {
      await copy(await text(), name);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    } }, label);
    return button;
  };
  const copies = (grid) => make("div", { class: "copies", role: "group", "aria-label": "Copy the table as shown" },
    make("span", {}, "Copy as"), Object.keys(FORMATS).map((name) => copyButton(name, `The table as ${name}`, () => FORMATS[name](grid()))));

  // ---- Small things that views share
  const scroller = (label, ...children) => make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
  const listing = (pairs) => make("dl", {}, pairs.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))));
  const fold = (title, about, fill) => { // its content is drawn when it is first opened
    const inside = make("div", { class: "inside" });
    const node = make("details", { class: "panel", ontoggle: async () => {
      if (!node.open || inside.childElementCount) return;
      inside.append(...[await fill()].flat());
    } }, make("summary", {}, title, about ? make("small", {}, ` ${about}`) : null), inside);
    return node;
  };
  const figure = async ([file, caption]) => {
    const from = await addressOf(file), picture = make("img", { src: from, alt: caption, loading: "lazy" });
    return make("figure", {}, make("div", { class: "paper" }, front.embedded ? picture : make("a", { href: from }, picture)), make("figcaption", {}, caption));
  };
  const pictures = (found) => fold("Pictures", `${found.length} of this part`, async () =>
    make("div", { class: "pictures" }, await Promise.all(found.map(figure))));
  const plainTable = (head, rows, { heads = 1, numbers = [], ...attributes } = {}) => make("table", attributes,
    make("thead", {}, make("tr", {}, head.map((name, at) => make("th", { scope: "col", class: numbers[at] && "number" }, name)))),
    make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((cell, at) =>
      make(at < heads ? "th" : "td", { scope: at < heads && "row", class: numbers[at] && "number" }, ...[cell].flat()))))));

  // ---- Overview: the matrix
  const band = ({ ranks, rank, tied }, ranked) => { // where between first and last the rank lies
    const at = (place) => 2 + (96 * (place - 1)) / Math.max(1, ranked - 1);
    return make("svg", { class: "band", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      make("line", { x1: 0, x2: 100, y1: 5, y2: 5, class: "track" }),
      ranks ? make("line", { x1: at(ranks[0]), x2: Math.max(at(ranks[1]), at(ranks[0]) + 1), y1: 5, y2: 5, class: tied ? "span tied" : "span" }) : null,
      make("line", { x1: at(rank), x2: at(rank), y1: 0, y2: 10, class: "at" }));
  };
  const seedsText = (count) => ["no complete seed", "one seed", "two seeds"][count] || `${count} seeds`;
  const rankText = (cell, ranked) => (cell.ranks ? `${between(cell.ranks)} of ${ranked}` : cell.rank ? seedsText(cell.seeds) : "");
  const cellOf = (cell, column) => {
    if (!cell) return make("td", { class: "none" }, "–");
    const tip = [`${cell.name}, ${column.heading}`, `Weighted F1 ${cell.score.toFixed(2)}`, cell.interval && `95 % interval ${range(cell.interval)}`,
      cell.rank && `Rank ${cell.rank} of ${column.ranked}`, cell.ranks && `95 % interval of the rank ${between(cell.ranks)}`, seedsText(cell.seeds),
      `${number(cell.parameters)} parameters`].filter(Boolean).join("\n");
    const small = rankText(cell, column.ranked);
    return make("td", { class: cell.tied ? "cell tied" : "cell", "data-tip": tip },
      link({ table: column.table, open: [cell.row] }, { "aria-label": `${cell.name}, ${cell.score.toFixed(1)}${small ? `, ${small}` : ""}, ${column.title}` }, cell.score.toFixed(1)),
      cell.rank ? make("small", {}, small) : null, cell.rank ? band(cell, column.ranked) : null);
  };
  const methodName = (line) => (front.docs && Object.hasOwn(front.methods, line.method)
    ? make("a", { href: `${front.docs}methods/#${encodeURIComponent(line.method)}` }, line.name) : line.name);
  const blockGrid = (block, lines) => {
    const head = ["Method", ...block.columns.flatMap((column) => [`${column.title}, weighted F1`, `${column.title}, ranks`]), "Parameters", "Seeds"];
    const rows = lines.map((line) => [line.name, ...line.cells.flatMap((cell, at) => [cell ? cell.score.toFixed(2) : "–", cell?.ranks ? `${between(cell.ranks)} of ${block.columns[at].ranked}` : "–"]),
      between(line.parameters), between(line.seeds)]);
    const numbers = head.map((_, at) => at > 0);
    return { cells: [head, ...rows], csv: [head, ...rows.map((row) => row.map((cell) => (cell === "–" ? "" : cell.replace(/,/g, ""))))], numbers };
  };
  const drawBlock = (block) => {
    // Sorted by a column, best first; methods that did not run there stay last, in the usual order.
    const sorted = () => {
      const [title, at] = [state.sort, block.columns.findIndex((column) => column.table === state.sort)];
      if (title === "parameters") return [...block.lines].sort((a, b) => a.parameters[1] - b.parameters[1]);
      return at < 0 ? block.lines : [...block.lines].sort((a, b) => (b.cells[at]?.score ?? -1) - (a.cells[at]?.score ?? -1));
    };
    const fits = (line) => state.q.toLowerCase().split(/[\s,]+/).filter(Boolean).every((word) => `${line.name} ${line.method}`.toLowerCase().includes(word));
    const row = (line) => make("tr", {}, make("th", { scope: "row" }, methodName(line)), line.cells.map((cell, at) => cellOf(cell, block.columns[at])),
      make("td", { class: "number extra", "data-tip": `${between(line.parameters)} trainable parameters, which depend on the features` }, size(line.parameters)), make("td", { class: "number extra" }, between(line.seeds)));
    const sorter = (key, ...children) => make("button", { type: "button", class: "sort", "data-key": key, onclick: () => {
      remember({ sort: state.sort === key ? "" : key });
      document.querySelectorAll(".matrix").forEach((table) => table.redraw());
    } }, ...children);
    const heads = [
      make("th", { scope: "col" }, "Method"),
      ...block.columns.map((column) => make("th", { scope: "col" }, sorter(column.table, column.title), link({ table: column.table }, { class: "about" },
        column.heading.split(", ").slice(1, -1).join(", ") || column.heading))),
      make("th", { scope: "col", class: "number extra" }, sorter("parameters", "Parameters")), make("th", { scope: "col", class: "number extra" }, "Seeds"),
    ];
    const body = make("tbody", {}), rest = make("tbody", { class: "references" });
    const table = make("table", { class: "matrix", "aria-label": block.heading }, make("thead", {}, make("tr", {}, heads)), body, rest);
    const shown = () => [...sorted().filter(fits), ...block.references.filter(fits)];
    table.redraw = () => {
      body.replaceChildren(...sorted().filter(fits).map(row));
      rest.replaceChildren(...block.references.filter(fits).map(row));
      for (const head of heads) {
        const key = head.querySelector(".sort")?.dataset.key;
        head.toggleAttribute("aria-sort", key === state.sort && Boolean(key));
        if (key === state.sort && key) head.setAttribute("aria-sort", key === "parameters" ? "ascending" : "descending");
      }
    };
    table.redraw();
    return make("section", { class: "block" }, make("div", { class: "top" }, make("h2", {}, block.heading), copies(() => blockGrid(block, shown()))),
      make("div", { class: "fit" }, table));
  };
  const overview = () => {
    if (!front.matrix.length) {
      return [make("p", {}, ...rich(front.empty || "No method has a rank on a real corpus yet. The tables of each corpus show what has been run."))];
    }
    const search = make("input", { type: "search", value: state.q, placeholder: "for example TFN", oninput: () => {
      remember({ q: search.value }, { replace: true });
      document.querySelectorAll(".matrix").forEach((table) => table.redraw());
    } });
    const features = front.matrix.flatMap((block) => block.columns.map((column) => make("li", {}, link({ table: column.table }, {}, column.heading), `: ${column.features}`)));
    return [
      make("div", { class: "above" },
        make("p", {}, "Weighted F1 in percent, mean over seeds, with the 95 % interval of the rank among all ranked rows of the column. ",
          make("span", { class: "extra" }, "The bar draws it from the first place (left) to the last (right); its tick is the rank by the score alone. "),
          make("strong", {}, "Bold on a tinted ground"), ": the best row, or one that is not shown to be behind it. With fewer than three seeds nothing is said of ranks and ties."),
        make("label", {}, "Method ", search)),
      make("div", { class: `blocks of-${Math.min(5, Math.max(...front.matrix.map((block) => block.columns.length)))}` }, front.matrix.map(drawBlock)),
      fold("How the matrix is made", "", () => [make("p", {}, `${front.choice} ${front.order} The rows below the line have no rank: they are what fusion has to beat. Press a corpus to sort by it, and a score to see the row in its table.`), make("ul", {}, features)]),
      front.across.length ? pictures(front.across) : null,
    ];
  };

  // ---- A table
  const bar = ([low, high, score, best, filled]) => make("svg", { class: "bar", viewBox: "-4 0 108 14", "aria-hidden": "true" },
    make("line", { x1: best, x2: best, y1: -10, y2: 24 }), make("path", { d: `M${low} 7H${high}` }),
    filled === null ? make("path", { class: "tick", d: `M${score} 2V12` }) : make("circle", { cx: score, cy: 7, r: 4, class: filled && "filled" }));
  const PHONE = ["Method", "Weighted F1", "95 % interval", "Seeds", "Rank"]; // on a phone: score and interval first
  const drawTable = async (key) => {
    const data = await load(`${key}.json`), summary = front.tables[key], tab = shownTab();
    const at = (column) => data.columns.indexOf(column);
    const shownColumns = () => {
      const found = data.columns.filter((column) => column.presets.includes(state.columns));
      if (!narrow.matches) return found;
      const order = (column) => (PHONE.includes(column.name) ? PHONE.indexOf(column.name) : PHONE.length);
      return [...found].sort((a, b) => order(a) - order(b));
    };
    const shownRows = () => {
      const words = state.q.toLowerCase().split(/[\s,]+/).filter(Boolean);
      const found = data.rows.filter((row) => (!state.reads || row.reads === state.reads) && (!state.made || row.provenance === state.made)
        && (!state.current || row.current) && words.every((word) => row.search.includes(word)));
      const column = data.columns.find((each) => each.name === state.sort.replace(/^-/, ""));
      if (!column) return found;
      const place = at(column), falling = state.sort.startsWith("-");
      const value = (row) => (column.name === "Method" ? row.name : row.cells[place].v);
      return found.map((row, index) => ({ row, index, value: value(row) })).sort((a, b) => { // what is not known stays last
        if (a.value === undefined || b.value === undefined) return (a.value === undefined) - (b.value === undefined) || a.index - b.index;
        const order = typeof a.value === "number" && typeof b.value === "number" ? a.value - b.value : String(a.value).localeCompare(String(b.value), "en", { numeric: true });
        return (falling ? -order : order) || a.index - b.index;
      }).map((each) => each.row);
    };
    const text = (row, column) => {
      if (column.name === "Method") return `${row.name} ${row.mark}`.trim();
      const cell = row.cells[at(column)];
      return cell.t ?? cell.x ?? "–";
    };
    const grid = () => {
      const columns = shownColumns(), rows = shownRows();
      const head = columns.flatMap((column) => [column.name, ...column.more.map((name) => `${column.name}, ${name}`)]);
      const csv = rows.map((row) => columns.flatMap((column) => {
        const cell = row.cells[at(column)];
        return [column.name === "Method" ? text(row, column) : cell.v, ...column.more.map((name) => cell.m?.[name])];
      }));
      return { cells: [columns.map((column) => column.name), ...rows.map((row) => columns.map((column) => text(row, column)))],
        csv: [head, ...csv], numbers: columns.map((column) => column.number) };
    };

    const cell = (row, column, edge) => {
      const found = row.cells[at(column)], classes = [column.number ? "number" : "text", edge && "edge", column.name === "Rank" && "rank", column.name === "Weighted F1" && "score"];
      if (column.name === "Method") {
        const open = state.open.includes(row.key);
        const button = make("button", { type: "button", class: "more", "aria-expanded": String(open), "data-row": row.key, onclick: () => toggle(row, button) }, row.name, row.mark ? `\u00a0${row.mark}` : "");
        return make("th", { scope: "row", class: "method" }, button);
      }
      return make("td", { class: classes.filter(Boolean).join(" "), "data-tip": found.h || null }, found.b && !narrow.matches ? bar(found.b) : null, found.x ?? "–", found.s ? make("small", {}, ` ${found.s}`) : null);
    };
    const body = make("tbody", {}), head = make("thead", {}), count = make("output", { "aria-live": "polite" });
    const drawHead = () => {
      const columns = shownColumns(), groups = [];
      for (const column of columns) {
        if (groups.at(-1)?.name === column.group) groups.at(-1).width += 1;
        else groups.push({ name: column.group, width: 1 });
      }
      const sorts = (column) => make("button", { type: "button", class: "sort", "data-tip": column.about, onclick: () => {
        const falling = state.sort.replace(/^-/, "") === column.name ? !state.sort.startsWith("-") : column.name === "Rank" && !state.sort ? true : column.falling;
        remember({ sort: (falling ? "-" : "") + column.name });
        drawBody();
      } }, column.name);
      head.replaceChildren(
        make("tr", { class: "groups" }, groups.map((group, index) => make(group.name ? "th" : "td", { colspan: group.width, scope: group.name && "colgroup", class: index && "edge" }, make("span", {}, group.name)))),
        make("tr", {}, columns.map((column, index) => make("th", { scope: "col", "data-column": column.name,
          class: [column.number ? "number" : "text", index && column.group !== columns[index - 1].group && "edge", column.name === "Rank" && "rank", column.name === "Method" && "method"].filter(Boolean).join(" ") }, sorts(column)))));
    };
    const drawBody = () => {
      const columns = shownColumns(), rows = shownRows();
      body.replaceChildren(...rows.flatMap((row) => {
        const line = make("tr", { class: [row.kind, row.tied && "tied"].filter(Boolean).join(" "), "data-key": row.key }, columns.map((column, index) => cell(row, column, index && column.group !== columns[index - 1].group)));
        return state.open.includes(row.key) ? [line, opened(row)] : [line];
      }));
      count.textContent = rows.length === data.rows.length ? `${rows.length} rows` : `${rows.length} of ${data.rows.length} rows`;
      if (!rows.length) body.append(make("tr", {}, make("td", { colspan: columns.length }, "No row matches. ", make("button", { type: "button", onclick: () => clear() }, "Clear the filter"))));
      const [name, falling] = [state.sort.replace(/^-/, "") || "Rank", state.sort.startsWith("-")];
      for (const each of head.querySelectorAll("[data-column]")) {
        if (each.dataset.column === name) each.setAttribute("aria-sort", falling ? "descending" : "ascending");
        else each.removeAttribute("aria-sort");
      }
    };
    const opened = (row) => {
      const inside = make("td", { colspan: shownColumns().length }, make("p", {}, "Loading …"));
      load(`${key}-details.json`).then((details) => inside.replaceChildren(drawDetails(key, data, row, details)), () => inside.replaceChildren(trouble()));
      return make("tr", { class: "details" }, inside);
    };
    const toggle = (row, button) => {
      const open = !state.open.includes(row.key), line = button.closest("tr");
      remember({ open: open ? [...state.open, row.key] : state.open.filter((each) => each !== row.key) });
      button.setAttribute("aria-expanded", String(open));
      if (open) line.after(opened(row)); else line.nextElementSibling.remove();
    };

    const change = (found, options) => { remember(found, options); drawBody(); };
    const only = (name, label, values) => make("label", {}, `${label} `, make("select", { name, onchange: (event) => change({ [name]: event.target.value }) },
      make("option", { value: "" }, "all"), [...new Set(values)].sort().map((value) => make("option", { value, selected: state[name] === value }, value))));
    const form = make("form", { onsubmit: (event) => event.preventDefault() },
      make("label", {}, "Search ", make("input", { name: "q", type: "search", value: state.q, placeholder: "for example TFN scaled", autocomplete: "off", spellcheck: "false", oninput: (event) => change({ q: event.target.value }, { replace: true }) })),
      only("reads", "Modalities", data.rows.map((row) => row.reads)), only("made", "Kind", data.rows.map((row) => row.provenance)),
      make("label", { class: "check" }, make("input", { name: "current", type: "checkbox", checked: state.current, onchange: (event) => change({ current: event.target.checked }) }), " only runs of today’s versions"),
      make("button", { type: "button", onclick: () => clear() }, "Clear"));
    const clear = () => {
      form.reset();
      for (const field of form.elements) {
        if (field.type === "checkbox") field.checked = false; else if (field.name) field.value = "";
      }
      change({ q: "", reads: "", made: "", current: false });
      form.elements.q.focus();
    };
    const measured = (name) => data.columns.some((column) => column.presets.includes(name) && column.presets.length < front.presets.length);
    const presets = make("fieldset", { class: "presets" }, make("legend", {}, "Columns"), front.presets.map((name) => make("label", {}, make("input", {
      type: "radio", name: "columns", value: name, checked: state.columns === name, disabled: !measured(name), onchange: () => { remember({ columns: name }); drawHead(); drawBody(); },
    }), make("span", {}, name))));
    narrow.onchange = () => { drawHead(); drawBody(); };
    drawHead();
    drawBody();

    const choose = make("select", { "aria-label": "Table", onchange: () => go({ table: choose.value }) }, tab.tables.map((each) =>
      make("option", { value: each, selected: each === key }, `${front.tables[each].heading} (${front.tables[each].features})`)));
    const stated = [["Best method", data.headline.best], ["Tied with it", data.headline.tied], ["Best single modality", data.headline.single], ["Gain of the best fusion over it", data.headline.gain]];
    return [
      tab.simulated ? make("p", { class: "warning" }, make("strong", {}, front.simulated)) : null,
      make("div", { class: "top" }, make("h2", {}, data.heading), tab.tables.length > 1 ? make("label", { class: "choose" }, `${tab.tables.length} tables `, choose) : null),
      make("p", { class: "sets" }, "Features: ", data.sets.map(([modality, name], index) => [index ? ", " : "", `${modality} `, make("code", {}, name)])),
      make("dl", { class: "stated" }, stated.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)))),
      make("div", { class: "tools" }, presets, copies(grid),
        make("details", { class: "filters", open: !narrow.matches || state.q || state.reads || state.made || state.current ? true : null }, make("summary", {}, "Filter"), form), count),
      scroller(data.heading, make("table", { class: "ranking", "aria-label": data.heading }, head, body)),
      make("p", { class: "hint" }, "Press a heading to sort and a method to open its details. Bold scores: the best row, or one not shown to be behind it. Rows without a rank are what fusion has to beat, or have runs that do not count; scores in italics lack folds.",
        front.own ? " Rows marked (own) contain runs from your folder of records; all others are the published ones." : "",
        data.rows.some((row) => row.mark.includes("‡")) ? " ‡ runs of another version of the method." : "",
        " † reconstruction, ° baseline, ◇ not built in, § contributed."),
      summary.pictures.length ? pictures(summary.pictures) : null,
      data.panels.map((panel) => fold(`${panel.title}:`, panel.about, () => drawPanel(panel))),
      fold("Protocol, features, training and how intervals are computed", "", () => make("ul", {}, data.facts.map((each) => make("li", {}, ...rich(each))))),
      fold("What the columns mean", "", () => listing(data.columns.map((column) => [column.name, column.about]))),
    ];
  };
  const drawPanel = ({ title, lines: [head, ...body], notes, names }) => {
    // With two names, one of which is filled, the second is a part of the first above it.
    const rows = body.map((cells) => [make("span", { class: names === 2 && !cells[0] && "part" }, ...rich(cells[0] || (names === 2 ? cells[1] : ""))), ...cells.slice(names).map(rich)]);
    const numbers = head.slice(names - 1).map((_, at) => at > 0 && body.every((cells) => /^[\s\d.,%+−–<>≈=()a-z*-]*$/.test(cells[at + names - 1])));
    return [scroller(title, plainTable([names === 2 ? "Method, and what is changed" : "Method", ...head.slice(names)], rows, { numbers })),
      notes.length ? make("ul", {}, notes.map((note) => make("li", {}, ...rich(note)))) : null].filter(Boolean);
  };

  // ---- Details of a row
  const curve = (values) => {
    const [width, height, left, bottom, top] = [340, 150, 40, 28, 10];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const x = (index) => left + ((width - left - 8) * index) / Math.max(1, values.length - 1);
    const y = (value) => height - bottom - ((height - bottom - top) * (value - low)) / Math.max(high - low, 0.1);
    const label = (at, from, anchor, text) => make("text", { x: at, y: from, "text-anchor": anchor }, text);
    return make("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Validation weighted F1 from ${values[0].toFixed(1)} in epoch 1 to ${values.at(-1).toFixed(1)} in epoch ${values.length}; the best is ${high.toFixed(1)}.` },
      make("path", { d: `M${left} ${top}V${height - bottom}H${width - 8}` }),
      values.length > 1 ? make("polyline", { points: values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }) : make("circle", { cx: x(0), cy: y(values[0]), r: 3 }),
      label(left - 5, y(high) + 4, "end", high.toFixed(1)), high - low > 0.1 ? label(left - 5, y(low) + 4, "end", low.toFixed(1)) : null,
      label(left, height - 12, "middle", "1"), label(width - 8, height - 12, "end", `${values.length}`), label((left + width) / 2, height - 2, "middle", "epoch"));
  };
  const confusion = (counts, classes) => {
    const table = make("table", { class: "confusion" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "true ↓ predicted →"), classes.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, counts.map((row, at) => {
        const total = row.reduce((sum, each) => sum + each, 0);
        return make("tr", {}, make("th", { scope: "row" }, classes[at]), row.map((each, to) => {
          const share = total ? each / total : 0, node = make("td", { class: at === to && "right", "data-tip": `${number(each)} of ${number(total)}` }, (100 * share).toFixed(0));
          node.style.setProperty("--share", share.toFixed(3));
          return node;
        }));
      })));
    return table;
  };
  const origin = (row) => {
    if (!Object.hasOwn(front.methods, row.method)) return [];
    const method = front.methods[row.method];
    const links = [
      method.paper ? make("a", { href: method.paper, rel: "noreferrer" }, "Paper") : null,
      front.docs ? make("a", { href: `${front.docs}methods/#${encodeURIComponent(row.method)}` }, "Documentation") : null,
      make("span", {}, "Code: ", make("code", {}, method.code)),
      method.bibtex ? copyButton("Copy BibTeX", "The BibTeX entry", () => method.bibtex) : null,
    ];
    return [make("p", {}, method.idea, "."), make("p", { class: "links" }, links)];
  };
  const part = (title, ...children) => make("section", {}, make("h3", {}, title), ...children);
  const drawDetails = (key, data, row, { rows, support }) => {
    const found = rows[row.key], head = (...names) => names, right = [false, true, true, true, true];
    return make("div", { class: "boxes" },
      make("div", { class: "first" }, make("h3", {}, found.title), origin(row),
        make("p", { class: "links" }, link({ view: "compare", a: `${key}/${row.key}` }, { class: "button" }, "Compare with another row")),
        listing(found.made), found.beside.length ? [make("h3", {}, "Measured beside the score"), listing(found.beside)] : null,
        make("h3", {}, "Commands that train it again"),
        make("p", {}, "They need the corpus prepared with the feature hashes above; bench trains all rows of the method in its suite.",
          front.publishedIn ? ` Commands read published records below ${front.publishedIn}; where that folder is absent, mer-bench records ${front.publishedIn} writes it.` : ""),
        found.commands.map(([name, line]) => [make("p", {}, `${name}:`), make("pre", { tabindex: "0" }, line)])),
      make("div", { class: "beside-it" }, part("By class", plainTable(head("Class", "Utterances", "Precision", "Recall", "F1"), data.classes.map((name, at) => [name, number(support[at]), ...found.classes[at].map((value) => value.toFixed(1))]), { numbers: right })),
      part("By seed", plainTable(head("Seed", "Weighted F1", "Accuracy", "Macro F1", "UAR"), found.seeds, { numbers: right })),
      part("Confusion", confusion(found.confusion, data.classes), make("p", {}, "Percent of the utterances of the true class, summed over seeds.")),
      part("Learning curve", found.curve.length ? [curve(found.curve), make("p", {}, "Validation weighted F1, mean over seeds and folds.")] : make("p", {}, "The validation score of each epoch was not recorded: the protocol has no validation, or the method does not train by epochs."))),
      fold(`${found.runs.length} trainings`, "with their hashes and files", () => make("div", { class: "wide" }, plainTable(head("Seed", "Fold", "Epoch", "Seconds", "Hash (SHA-256) of the specification", "Record"),
        found.runs.map(([seed, one, epoch, seconds, hash, path]) => [seed, one, epoch, seconds.toFixed(1), make("code", {}, hash), make("code", {}, path)]), { heads: 0 }))));
  };

  // ---- Comparison of any two rows
  const difference = (data, pairs, a, b) => {
    const [i, j] = a < b ? [a, b] : [b, a], found = pairs[i * data.rows.length - (i * (i + 1)) / 2 + j - i - 1];
    return !found || a < b ? found : [-found[0], -found[2], -found[1], found[3]];
  };
  const written = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);
  const beside = (sides) => { // two intervals on one scale
    const known = sides.filter(({ row }) => row.interval);
    if (!known.length) return null;
    const low = Math.min(...known.map(({ row }) => row.interval[0])) - 1, high = Math.max(...known.map(({ row }) => row.interval[1])) + 1;
    const x = (value) => 30 + (470 * (value - low)) / (high - low);
    return make("div", { class: "wide" }, make("svg", { class: "beside", viewBox: "0 0 660 70", role: "img", "aria-label": known.map(({ name, row }) => `${name}: ${row.score.toFixed(1)}, ${range(row.interval)}`).join("; ") },
      known.map(({ name, row }, at) => [make("text", { x: 0, y: 24 + 30 * at }, name), make("line", { x1: x(row.interval[0]), x2: x(row.interval[1]), y1: 20 + 30 * at, y2: 20 + 30 * at }),
        make("circle", { cx: x(row.score), cy: 20 + 30 * at, r: 5 }), make("text", { x: x(row.interval[1]) + 8, y: 24 + 30 * at }, `${row.score.toFixed(1)} (${range(row.interval)})`)])));
  };
  const gainBar = (gain, widest) => {
    const width = (50 * Math.abs(gain)) / widest;
    return make("svg", { class: "gain", viewBox: "-1 0 102 14", preserveAspectRatio: "none", "aria-hidden": "true" },
      make("rect", { x: gain < 0 ? 50 - width : 50, y: 2, width, height: 10, class: gain < 0 ? "loss" : "won" }), make("line", { x1: 50, x2: 50, y1: 0, y2: 14 }));
  };
  const verdict = async ([a, b]) => {
    if (a.table === b.table && a.row === b.row) return [make("p", {}, "Choose two different rows.")];
    const scores = `Weighted F1 ${a.row.score.toFixed(2)} (A) against ${b.row.score.toFixed(2)} (B)`;
    const [one, other] = [front.tables[a.table], front.tables[b.table]], command = a.row.method === b.row.method ? null
      : [make("p", {}, "Command that tests the difference and lists the utterances on which they differ:"), make("pre", { tabindex: "0" }, `mer-bench compare ${a.row.method} ${b.row.method} --dataset ${one.splits[0]}`)];
    const same = one.splits.join("\n") === other.splits.join("\n");
    if (a.table !== b.table) {
      return [make("p", { class: "verdict" }, `${scores}. `, same
        ? "They stand in two tables, which differ in track or features; no paired difference is kept over tables, so only their intervals stand beside each other. Both were tested on the same utterances, so that the command below can test the difference."
        : "They were tested on different utterances, so the difference between the two scores says nothing about the methods. Each score has its own interval."), beside([a, b]), same ? command : null];
    }
    const details = await load(`${a.table}-details.json`), found = difference(a.data, details.pairs, a.data.rows.indexOf(a.row), b.data.rows.indexOf(b.row));
    const [mine, yours] = [a, b].map(({ row }) => details.rows[row.key].classes.map((each) => each[2]));
    let text = `${scores}. There is no paired test: a row lacks a complete seed, or its scores by dialogue or actor.`;
    if (found) {
      const [effect, low, high, p] = found, few = [a.row.few, b.row.few].filter(Boolean).sort()[0]; // no complete seed, one seed, two seeds
      const said = few ? `with ${few}, this holds for these trainings alone` : p >= 0.05 ? "no difference is shown" : effect > 0 ? "A is ahead" : "B is ahead";
      text = `${scores}: ${signed(effect)} points, 95 % interval ${signed(low)} to ${signed(high)}, ${written(p)}: ${said}.`;
    }
    const gains = mine.map((value, at) => value - yours[at]), widest = Math.max(5, ...gains.map(Math.abs));
    return [make("p", { class: "verdict" }, text),
      found ? make("p", {}, "Paired bootstrap on the same test utterances; the p-value is not corrected for other comparisons.") : null, beside([a, b]),
      make("div", { class: "wide" }, plainTable(["Class", "Utterances", "F1 of A", "F1 of B", "Gain of A over B", ""], a.data.classes.map((name, at) =>
        [name, number(details.support[at]), mine[at].toFixed(1), yours[at].toFixed(1), signed(gains[at]), gainBar(gains[at], widest)]), { numbers: [false, true, true, true, true, false], class: "gains" })), command];
  };
  const drawCompare = async () => {
    const keys = front.tabs.flatMap((tab) => tab.tables);
    if (!keys.length) return [make("p", {}, ...rich(front.empty))];
    const first = front.matrix[0]?.columns[0].table || keys[0];
    const side = async (name, other) => {
      const [table, key] = state[name].split("/"), known = [table, state[other].split("/")[0], first], chosen = known.find((each) => Object.hasOwn(front.tables, each));
      const data = await load(`${chosen}.json`), taken = state[other].split("/")[1];
      const row = data.rows.find((each) => each.key === key) || data.rows.find((each) => name === "a" || each.key !== (taken || data.rows[0].key)) || data.rows[0];
      return { name: name.toUpperCase(), table: chosen, data, row };
    };
    const sides = [await side("a", "b"), await side("b", "a")];
    const choose = async (name, value) => { remember({ [name]: value }); await render(); };
    const picker = ({ name, table, data, row }) => {
      const key = name.toLowerCase();
      return make("fieldset", {}, make("legend", {}, name),
        make("label", {}, "Table ", make("select", { "aria-label": `Table of ${name}`, onchange: (event) => choose(key, event.target.value) }, front.tabs.map((tab) => make("optgroup", { label: tab.title }, tab.tables.map((each) =>
          make("option", { value: each, selected: each === table }, `${front.tables[each].heading} (${front.tables[each].features})`)))))),
        make("label", {}, "Row ", make("select", { "aria-label": `Row of ${name}`, onchange: (event) => choose(key, `${table}/${event.target.value}`) }, data.rows.map((each) =>
          make("option", { value: each.key, selected: each === row }, `${each.name}, ${each.score.toFixed(1)}`)))));
    };
    return [make("h2", {}, "Compare two rows"), make("p", {}, "Rows of one table are compared by a paired test. Rows of two tables are shown beside each other."),
      make("div", { class: "pickers" }, picker(sides[0]), picker(sides[1]),
        make("button", { type: "button", onclick: () => { remember({ a: `${sides[1].table}/${sides[1].row.key}`, b: `${sides[0].table}/${sides[0].row.key}` }); render(); } }, "Swap")),
      make("div", { class: "result", "aria-live": "polite" }, ...(await verdict(sides)).flat().filter(Boolean))];
  };

  // ---- Published numbers
  const drawPublished = async () => {
    const head = ["Method", "Metric", "Value", "Parameters", "Protocol as published", "Source", "Trust"];
    return [make("h2", {}, "Published numbers"), make("p", {}, front.published), (await load("published.json")).map(({ corpus, rows }) => make("section", {}, make("h3", {}, corpus),
      scroller(`Published numbers, ${corpus}`, plainTable(head, rows.map(([method, metric, value, params, protocol, source, trust, note]) =>
        [[method, note ? make("small", { class: "note" }, note) : null].filter(Boolean), metric, value, params, protocol, source, trust]), { class: "published", numbers: [false, false, true, true] }))))];
  };

  // ---- Draw what the state says
  let turn = 0;
  const render = async ({ scroll = false } = {}) => {
    const mine = ++turn, tab = shownTab() || tabs[0], before = document.activeElement?.getAttribute("aria-label");
    narrow.onchange = null;
    for (const each of tabs) {
      each.button.setAttribute("aria-selected", String(each === tab));
      each.button.tabIndex = each === tab ? 0 : -1;
    }
    const box = tab.button.getBoundingClientRect(), strip = tablist.getBoundingClientRect(); // scrollIntoView would move where Tab starts
    tablist.scrollLeft += Math.min(box.left - strip.left, 0) + Math.max(box.right - strip.right, 0);
    main.setAttribute("aria-labelledby", tab.button.id);
    let found;
    try {
      found = state.table ? await drawTable(state.table) : state.view === "published" ? await drawPublished() : state.view === "compare" ? await drawCompare() : overview();
    } catch { found = [trouble()]; }
    if (mine !== turn) return; // the reader has gone on
    main.replaceChildren(...found.flat(3).filter((each) => each !== null && each !== undefined));
    main.dataset.shown = state.table || state.view || "overview";
    if (before) [...main.querySelectorAll("select")].find((each) => each.getAttribute("aria-label") === before)?.focus(); // what was chosen is still at hand
    if (state.table && state.open.length) main.querySelector(`tr[data-key="${CSS.escape(state.open[0])}"]`)?.scrollIntoView({ block: "start" });
    else if (scroll) scrollTo(0, 0);
  };
  addEventListener("popstate", () => { state = read(); render(); });

  // ---- Hints: on hover and on keyboard focus; Escape takes them away.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const owner = event.target.closest?.("[data-tip]");
    if (!owner) return hide();
    tip.textContent = owner.dataset.tip;
    tip.hidden = false;
    const box = owner.getBoundingClientRect(), own = tip.getBoundingClientRect(), below = box.bottom + 6 + own.height < innerHeight;
    tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - own.width - 4))}px`;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - own.height - 6)}px`;
  };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

  document.querySelector(".skip").addEventListener("click", (event) => { // an address "#main" would be another state
    event.preventDefault();
    main.focus();
  });
  document.querySelector(".lead").append(`Fusion methods for multimodal emotion recognition, trained on identical frozen features, with the epoch chosen on validation, never on test.`);
  document.querySelector("footer").prepend(`${number(front.runs)} trainings in ${Object.keys(front.tables).length} tables. `);
  if (front.docs) document.querySelector("header .links").append(make("a", { href: front.docs }, "Documentation"));
  render();
})();
