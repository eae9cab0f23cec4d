"use strict";
// Charts by plotly.js, in one style, drawn when they come into view.

(() => {
  const CONFIG = {
    displaylogo: false,
    responsive: true,
    // Nothing of a report goes to another machine.
    showSendToCloud: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "sendDataToCloud", "sendChartToCloud"],
    toImageButtonOptions: { format: "svg" },
  };
  const FONT = { family: "system-ui, sans-serif", size: 12, color: "#1b2733" };
  // In letters, on a wide and on a narrow window.
  const LONGEST = [22, 14];
  // Pixels: narrower charts have no scale and no buttons beside them; narrower cells cannot be read.
  const NARROW = 420;
  const CELL = 13;
  const BESIDE = 130;

  report.isNarrow = (host) => host.clientWidth < NARROW;

  // plotly.js reads some tags and entities in texts; a name is shown as it is.
  report.plain = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const short = (text) => {
    const letters = Array.from(String(text));
    const longest = LONGEST[window.innerWidth < 600 ? 1 : 0];
    return report.plain(letters.length > longest ? `${letters.slice(0, longest - 1).join("")}…` : text);
  };

  // Names on an axis of places 0, 1, ...: as categories, equal names would fall together.
  report.named = (names, title) => {
    const step = Math.ceil(names.length / 60);
    const places = names.map((_, i) => i).filter((i) => i % step === 0);
    return {
      title: { text: title || "", standoff: 8 },
      tickangle: names.length > 8 ? -90 : "auto",
      tickmode: "array",
      tickvals: places,
      ticktext: places.map((i) => short(names[i])),
      automargin: true,
      zeroline: false,
    };
  };

  report.plot = (host, traces, layout) => {
    const narrow = report.isNarrow(host);
    const full = {
      font: FONT,
      // Above a wide chart there is room for the buttons.
      margin: { l: 50, r: 15, t: narrow ? 15 : 36, b: 45 },
      // A finger that drags scrolls the page.
      dragmode: narrow ? false : "zoom",
      paper_bgcolor: "#ffffff",
      plot_bgcolor: "#ffffff",
      hoverlabel: { align: "left" },
      ...layout,
    };
    return Plotly.react(host, traces, full, { ...CONFIG, displayModeBar: narrow ? false : "hover" });
  };

  // Table z[row][column] as shades. texts: what to say of a cell; pick: called with (column, row) on a click.
  report.heatmap = (host, { z, x, y, label, texts, height, cells, range, pick, square }) => {
    const narrow = report.isNarrow(host);
    const trace = {
      type: "heatmap",
      showscale: !narrow,
      z: z.map((row) => row.map((value) => (Number.isFinite(value) ? value : null))),
      colorscale: report.scale,
      hoverinfo: "text",
      hovertext: texts,
      hoverongaps: false,
      xgap: square ? 1 : 0,
      ygap: square ? 1 : 0,
    };
    if (!narrow) trace.colorbar = { title: { text: label || "", side: "top" }, thickness: 12, outlinewidth: 0, exponentformat: "e" };
    if (range) [trace.zmin, trace.zmax] = range;
    if (cells) Object.assign(trace, { text: cells, texttemplate: "%{text}", textfont: { size: 10 } });
    if (x.start !== undefined) Object.assign(trace, { x0: x.start, dx: x.step });
    const least = x.names ? BESIDE + CELL * Math.min(x.names.length, 60) : 0;
    const layout = {
      height: height || 70 + 17 * z.length + 60,
      // Wider than the window, the chart scrolls.
      ...(least > host.clientWidth ? { width: least } : {}),
      plot_bgcolor: "#e3e8ec",
      xaxis: { showgrid: false, ...(x.names ? report.named(x.names, x.title) : { title: { text: x.title || "" } }) },
      yaxis: { showgrid: false, autorange: "reversed", ...report.named(y.names, y.title), tickangle: 0 },
      shapes: x.cursor === undefined ? [] : [cursor(x.cursor)],
    };
    const drawn = report.plot(host, [trace], layout);
    listen(host, "plotly_click", (point) => pick && pick(point.x, point.y));
    return drawn;
  };

  const cursor = (place) => ({
    type: "line", yref: "paper", x0: place, x1: place, y0: 0, y1: 1, line: { color: "#35c4f0", width: 2 },
  });

  report.moveCursor = (host, place) => {
    if (host.layout && host.layout.shapes.length) {
      Plotly.relayout(host, { "shapes[0].x0": place, "shapes[0].x1": place });
    }
  };

  // series: [{name, values}] over names or numbers.
  report.lines = (host, series, { names, x, title, yTitle, height, bars }) => {
    const places = x || names.map((_, i) => i);
    const traces = series.map(({ name, values }, i) => ({
      ...(bars ? { type: "bar" } : { type: "scatter", mode: "lines+markers" }),
      name: report.plain(name),
      x: places,
      y: values,
      marker: { color: report.palette[i % report.palette.length] },
      hoverinfo: "text",
      hovertext: values.map((value, at) =>
        `${report.plain(name)}<br>${report.plain(names ? names[at] : places[at])}: ${report.number(value, 4)}`),
    }));
    return report.plot(host, traces, {
      height: height || 320,
      ...(bars ? { barmode: "group" } : {}),
      xaxis: names ? report.named(names, title) : { title: { text: title }, zeroline: false },
      yaxis: { title: { text: yTitle }, rangemode: "tozero", gridcolor: "#e3e8ec", automargin: true },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      margin: { l: 50, r: 15, t: report.isNarrow(host) || series.length < 2 ? 36 : 58, b: 45 },
      showlegend: series.length > 1,
    });
  };

  // One listener for each event of a chart, whatever is drawn anew in it.
  const listen = (host, event, act) => {
    host.acts = host.acts || {};
    if (!host.acts[event]) host.on(event, (data) => host.acts[event](data.points[0]));
    host.acts[event] = act;
  };
  report.listen = listen;

  const waiting = new Map();
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const entry = waiting.get(target);
        entry.near = isIntersecting;
        if (entry.near && entry.old) refresh(entry);
      }
    },
    { rootMargin: "300px" },
  );

  const refresh = (entry) => {
    entry.old = false;
    entry.draw();
  };

  // Draws once host comes near, and again when a part of the state that it needs has changed.
  report.lazily = (host, needs, draw) => {
    const entry = { draw, near: false, old: true };
    waiting.set(host, entry);
    report.listeners.push((changed) => {
      if (!needs.some((name) => changed.has(name))) return;
      entry.old = true;
      if (entry.near) refresh(entry);
    });
    watcher.observe(host);
  };
})();
