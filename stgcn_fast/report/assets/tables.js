"use strict";
// Tables that sort by a click on a column and are saved as CSV.

(() => {
  const { data, make } = report;
  const FIRST = 100;

  // Columns: {name, digits} with digits for numbers, none for text.
  const tables = () => {
    const found = [];
    const { names, labels, predictions, scores } = data.rows;
    if (names.length) {
      found.push({
        id: "clips", title: "Clips",
        columns: [{ name: "clip" }, { name: "true class" }, { name: "predicted" }, { name: "probability", digits: 3 }, { name: "result" }],
        rows: names.map((name, row) => [
          name,
          labels[row] < 0 ? "" : report.className(labels[row]),
          report.className(predictions[row]),
          scores[row],
          labels[row] < 0 ? "" : report.wrong(row) ? "wrong" : "right",
        ]),
        pick: (row) => {
          const place = report.clipOfRow.get(row);
          if (place !== undefined) report.showClip(place, true);
        },
        picks: (row) => report.clipOfRow.has(row),
      });
    }
    const layers = layerTable();
    if (layers) found.push(layers);
    const classes = classTable();
    if (classes) found.push(classes);
    if (data.explain) {
      const { joints } = data.skeleton;
      const rows = [];
      data.layers.forEach((layer, i) => {
        data.classes.forEach((name, number) => {
          if (report.hasClass(i, number)) rows.push([layer, name, ...report.importance(i, number)]);
        });
      });
      found.push({
        id: "importance_of_joints", title: "Importance of joints",
        columns: [{ name: "layer" }, { name: "class" }, ...joints.map((name) => ({ name, digits: 3 }))],
        rows,
      });
    }
    if (data.noise) {
      const { layers: names2, snr_db: levels, accuracy, smoothness } = data.noise;
      const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
      found.push({
        id: "noise_levels", title: "Noise",
        columns: [{ name: "signal to noise" }, { name: "accuracy", digits: 4 }, ...names2.map((name) => ({ name, digits: 4 }))],
        rows: levels.map((level, i) => [
          level === null ? "clean" : `${level} dB`, mean(accuracy[i]),
          ...names2.map((_, layer) => mean(smoothness[i].map((run) => run[layer]))),
        ]),
      });
    }
    if (data.transfer) {
      const { frozen, parameters, accuracy, train_accuracy: training } = data.transfer;
      found.push({
        id: "transfer_depths", title: "Transfer",
        columns: [{ name: "blocks frozen", digits: 0 }, { name: "parameters tuned", digits: 0 }, { name: "test accuracy", digits: 4 }, { name: "training accuracy", digits: 4 }],
        rows: frozen.map((depth, i) => [depth, parameters[i], accuracy[i], training[i]]),
      });
    }
    return found;
  };

  const layerTable = () => {
    const parts = [];
    if (data.geometry) {
      const { layers, smoothness } = data.geometry;
      for (const [kind, { values }] of Object.entries(smoothness)) {
        parts.push([`error ${kind}`, (name) => values[layers.indexOf(name)]]);
      }
    }
    const { contrastivity, faithfulness } = data.explain ? data.explain.figures : {};
    for (const [kind, values] of Object.entries(contrastivity || {})) {
      parts.push([`contrast ${kind}`, (name) => values[name]]);
    }
    for (const which of faithfulness ? ["most", "random", "least"] : []) {
      parts.push([`accuracy lost, ${which}`, (name) => faithfulness.layers[name] && faithfulness.layers[name][which].accuracy_drop]);
    }
    if (!parts.length) return null;
    return {
      id: "layers", title: "Layers",
      columns: [{ name: "layer" }, ...parts.map(([name]) => ({ name, digits: 4 }))],
      rows: data.layers.map((name) => [name, ...parts.map(([, value]) => value(name))]),
    };
  };

  const classTable = () => {
    if (!data.confusion) return null;
    const sums = data.confusion.map((row) => row.reduce((a, b) => a + b, 0));
    const predicted = data.classes.map((_, j) => data.confusion.reduce((sum, row) => sum + row[j], 0));
    const columns = [{ name: "class" }, { name: "clips", digits: 0 }, { name: "recall", digits: 3 }, { name: "precision", digits: 3 }];
    const smooth = data.geometry ? data.geometry.smoothness.rw.per_class : null;
    const ends = smooth ? [0, smooth.length - 1] : [];
    for (const i of ends) columns.push({ name: `error, ${data.geometry.layers[i]}`, digits: 4 });
    return {
      id: "classes", title: "Classes", columns,
      rows: data.classes.map((name, i) => [
        name, sums[i],
        sums[i] ? data.confusion[i][i] / sums[i] : null,
        predicted[i] ? data.confusion[i][i] / predicted[i] : null,
        ...ends.map((layer) => smooth[layer][i]),
      ]),
    };
  };

  const compare = (a, b) => {
    const [noA, noB] = [a, b].map((value) => value === null || value === undefined || value === "");
    if (noA || noB) return noA - noB;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  };

  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };

  report.csv = ({ columns, rows }) =>
    [columns.map(({ name }) => name), ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");

  const download = (name, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const show = (section, table) => {
    let [order, sorted, upward, all] = [table.rows.map((_, i) => i), -1, true, false];
    const body = make("tbody");
    const heads = table.columns.map(({ name, digits }, column) => {
      const button = make("button", { type: "button" }, name);
      const head = make("th", { class: digits === undefined ? undefined : "number", "aria-sort": "none", scope: "col" }, button);
      button.addEventListener("click", () => {
        upward = sorted === column ? !upward : true;
        sorted = column;
        const sign = upward ? 1 : -1;
        order = table.rows.map((_, i) => i).sort((a, b) => {
          const [x, y] = [table.rows[a][column], table.rows[b][column]];
          // What has no value stays at the end.
          const missing = [x, y].some((value) => value === null || value === undefined || value === "");
          return (missing ? 1 : sign) * compare(x, y) || a - b;
        });
        heads.forEach((other, i) => other.setAttribute("aria-sort", i !== column ? "none" : upward ? "ascending" : "descending"));
        fill();
      });
      return head;
    });
    const more = make("button", { type: "button" }, `All ${table.rows.length} rows`);
    more.addEventListener("click", () => {
      all = true;
      fill();
    });
    const save = make("button", { type: "button", class: "csv" }, "CSV");
    save.addEventListener("click", () =>
      download(`${table.id}.csv`, report.csv({ columns: table.columns, rows: order.map((i) => table.rows[i]) })));
    const fill = () => {
      const shown = all ? order : order.slice(0, FIRST);
      more.hidden = shown.length === order.length;
      body.replaceChildren(...shown.map((i) => {
        const row = make("tr", {}, ...table.rows[i].map((value, column) => {
          const { digits } = table.columns[column];
          return digits === undefined ? make("td", {}, value) : make("td", { class: "number" }, report.number(value, digits));
        }));
        if (table.picks && table.picks(i)) {
          row.classList.add("pick");
          row.title = "show in the player";
          row.addEventListener("click", () => table.pick(i));
        }
        return row;
      }));
    };
    fill();
    section.append(
      make("div", { class: "table-head" }, make("h3", {}, table.title), save, more),
      make("div", { class: "scroll", tabindex: "0" }, make("table", { id: `table-${table.id}` }, make("thead", {}, make("tr", {}, ...heads)), body)),
    );
  };

  report.tableSection = () => {
    const found = tables();
    if (!found.length) return;
    const section = report.section("tables", "Tables", "Click a column to sort by it.");
    for (const table of found) show(section, table);
  };
})();
